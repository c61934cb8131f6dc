//! `--file SRC:DEST`: a file goes into the sprite as the input of a small shell command.
//!
//! The command writes beside the destination, counts what came and renames only the whole: a transfer that breaks
//! off leaves the destination as it was. Names are arguments, never text of the shell.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::str::FromStr;

use sprite_client::{ExecError, Sprite, Stdio};
use tokio::io::AsyncWriteExt;

use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// `$1` destination, `$2` file name of the source, `$3` size in bytes, `$4` mode.
const RECEIVE: &str = r#"
set -eu
case $1 in */) mkdir -p -- "$1"; to=$1$2 ;; *) to=$1 ;; esac
if [ -d "$to" ]; then to=$to/$2; fi
mkdir -p -- "$(dirname -- "$to")"
part=$to.part.$$
trap 'rm -f -- "$part"' EXIT
cat > "$part"
got=$(wc -c < "$part")
if [ "$got" -ne "$3" ]; then echo "only $got of $3 bytes came" >&2; exit 1; fi
chmod "$4" "$part"
mv -f -- "$part" "$to"
trap - EXIT
"#;

/// Bytes read and sent at once.
const CHUNK: usize = 64 << 10;

/// A file here and its place in the sprite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upload {
    source: PathBuf,
    destination: String,
}

impl FromStr for Upload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((source, destination)) if !source.is_empty() && !destination.is_empty() => {
                Ok(Self {
                    source: source.into(),
                    destination: destination.to_owned(),
                })
            }
            Some(_) | None => Err("it is not of the form SRC:DEST".to_owned()),
        }
    }
}

/// Copies the file.
pub(super) async fn copy(
    context: &Context,
    sprite: &Sprite,
    upload: &Upload,
) -> Result<(), Failure> {
    let shown = upload.source.display();
    let unreadable =
        |error: std::io::Error| Failure::caused(format!("cannot read {shown}"), &error);
    let mut file = File::open(&upload.source).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let name = upload.source.file_name().and_then(|name| name.to_str());
    let (true, Some(name)) = (metadata.is_file(), name) else {
        return Err(Failure::usage(format!("{shown} is not a file"))
            .hint("for a directory: tar c DIR | sprite exec -- tar x -C /home/sprite"));
    };
    let size = metadata.len();
    let mode = format!("{:o}", metadata.permissions().mode() & 0o777);
    let command = sprite
        .command("sh")
        .args([
            "-c",
            RECEIVE,
            "sh",
            &upload.destination,
            name,
            &size.to_string(),
            &mode,
        ])
        .stdin(Stdio::Piped);
    let failed = |error: ExecError| context.exec_failure(&error, sprite);
    let mut child = command.spawn().await.map_err(failed)?;
    let mut stdin = child.stdin.take().expect("asked for");
    let sending = async {
        let mut chunk = vec![0; CHUNK];
        loop {
            // A local file is read at once; a thread for it would cost more than it saves.
            match file.read(&mut chunk) {
                Ok(0) => break,
                // What the command does not read, it has said why in its errors.
                Ok(len) if stdin.write_all(&chunk[..len]).await.is_err() => break,
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        let _ = stdin.shutdown().await;
        Ok(())
    };
    let receiving = child.wait_with_output();
    let (sent, received) = tokio::join!(sending, receiving);
    sent.map_err(unreadable)?;
    let output = received.map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<String> = said.lines().map(show::plain).collect();
        return Err(Failure::new(format!(
            "cannot copy {shown} to {}: {}",
            upload.destination,
            said.join("; ")
        )));
    }
    show::note(&format!(
        "copied {shown} to {} ({size} bytes)",
        upload.destination
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_may_hold_colons() {
        let upload: Upload = "a/b:/tmp/x:y".parse().expect("two names");
        assert_eq!(
            (upload.source, upload.destination.as_str()),
            (PathBuf::from("a/b"), "/tmp/x:y")
        );
        for bad in ["", "a", "a:", ":b"] {
            assert!(bad.parse::<Upload>().is_err(), "{bad:?}");
        }
    }
}
