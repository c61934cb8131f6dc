//! The smallest ELF file that is booted as a kernel: one segment of code, one note with the entry.
//!
//! Source: `elf(5)`; `XEN_ELFNOTE_PHYS32_ENTRY` of Xen's `elfnote.h`.

/// Where the code lies in the guest, and where it is entered.
pub const LOAD_ADDRESS: u64 = 0x10_0000;

const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
const PHYS32_ENTRY: u32 = 18;

/// A file with `code`.
pub fn kernel(code: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4, 4, PHYS32_ENTRY] {
        note.extend(u32::to_le_bytes(word));
    }
    note.extend(b"Xen\0");
    note.extend(u32::try_from(LOAD_ADDRESS).expect("small").to_le_bytes());

    let notes_at = HEADER + 2 * PROGRAM_HEADER;
    let code_at = notes_at + note.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    file.resize(16, 0);
    // Executable, x86-64, version 1.
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend(LOAD_ADDRESS.to_le_bytes());
    file.extend(HEADER.to_le_bytes());
    file.extend(0_u64.to_le_bytes());
    file.extend(0_u32.to_le_bytes());
    for half in [HEADER, PROGRAM_HEADER, 2, 64, 0, 0] {
        file.extend(u16::try_from(half).expect("small").to_le_bytes());
    }
    program_header(&mut file, NOTE, notes_at, 0, note.len() as u64);
    program_header(&mut file, LOAD, code_at, LOAD_ADDRESS, code.len() as u64);
    file.extend(note);
    file.extend(code);
    file
}

fn program_header(file: &mut Vec<u8>, kind: u32, offset: u64, address: u64, size: u64) {
    file.extend(kind.to_le_bytes());
    file.extend(7_u32.to_le_bytes());
    for value in [offset, address, address, size, size, 4] {
        file.extend(value.to_le_bytes());
    }
}
