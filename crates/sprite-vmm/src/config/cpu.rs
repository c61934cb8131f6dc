//! How the guest's CPU differs from the template that every machine gets.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{ConfigError, absent};

/// Most leaves that one configuration may change; no CPU has as many.
const MAX_LEAVES: usize = 256;

/// Changes of CPUID, made after the template's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Wire")]
pub struct CpuConfig {
    /// Leaf by leaf.
    pub cpuid_modifiers: Vec<CpuidModifier>,
}

/// A change of one leaf of CPUID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuidModifier {
    /// The leaf, which a guest puts into `eax`.
    #[serde(with = "number")]
    pub leaf: u32,
    /// The subleaf, which it puts into `ecx`.
    #[serde(with = "number")]
    pub subleaf: u32,
    /// `flags` of `struct kvm_cpuid_entry2`.
    pub flags: u32,
    /// Register by register, at most once each.
    pub modifiers: Vec<RegisterModifier>,
}

/// A change of one register of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterModifier {
    /// Which register.
    pub register: Register,
    /// Which bits, and what they become.
    pub bitmap: Bitmap,
}

/// A register that CPUID answers in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Register {
    /// `eax`
    Eax,
    /// `ebx`
    Ebx,
    /// `ecx`
    Ecx,
    /// `edx`
    Edx,
}

impl RegisterModifier {
    /// The register's value after the change.
    #[must_use]
    pub fn applied_to(self, before: u32) -> u32 {
        (before & !self.bitmap.changed) | self.bitmap.value
    }
}

/// 32 bits, each 0, 1 or left as it is. Written as `0b` and 32 of `0`, `1`, `x`, most significant first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bitmap {
    changed: u32,
    /// Zero outside `changed`.
    value: u32,
}

impl TryFrom<String> for Bitmap {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Bitmap, ConfigError> {
        let wrong = ConfigError::Form {
            field: "bitmap",
            rule: "0b and 32 of the characters 0, 1, x and _ for readability",
        };
        let digits = text.strip_prefix("0b").ok_or_else(|| wrong.clone())?;
        let mut bitmap = Bitmap {
            changed: 0,
            value: 0,
        };
        let mut count = 0;
        for digit in digits.bytes().filter(|byte| *byte != b'_') {
            let (changed, value) = match digit {
                b'0' => (1, 0),
                b'1' => (1, 1),
                b'x' => (0, 0),
                _ => return Err(wrong),
            };
            bitmap.changed = bitmap.changed << 1 | changed;
            bitmap.value = bitmap.value << 1 | value;
            count += 1;
        }
        if count == 32 { Ok(bitmap) } else { Err(wrong) }
    }
}

impl From<Bitmap> for String {
    fn from(bitmap: Bitmap) -> String {
        let mut text = String::from("0b");
        for bit in (0..32).rev() {
            let mask = 1u32 << bit;
            let digit = match (bitmap.changed & mask != 0, bitmap.value & mask != 0) {
                (false, _) => 'x',
                (true, false) => '0',
                (true, true) => '1',
            };
            text.push(digit);
        }
        text
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default)]
    cpuid_modifiers: Vec<CpuidModifier>,
    #[serde(default)]
    kvm_capabilities: Vec<IgnoredAny>,
    #[serde(default)]
    msr_modifiers: Vec<IgnoredAny>,
    #[serde(default)]
    reg_modifiers: Vec<IgnoredAny>,
    #[serde(default)]
    vcpu_features: Vec<IgnoredAny>,
}

impl TryFrom<Wire> for CpuConfig {
    type Error = ConfigError;

    fn try_from(wire: Wire) -> Result<CpuConfig, ConfigError> {
        let template = "only cpuid_modifiers change the CPU's template";
        absent(wire.kvm_capabilities.first(), "kvm_capabilities", template)?;
        absent(wire.msr_modifiers.first(), "msr_modifiers", template)?;
        absent(wire.reg_modifiers.first(), "reg_modifiers", template)?;
        absent(wire.vcpu_features.first(), "vcpu_features", template)?;
        if wire.cpuid_modifiers.len() > MAX_LEAVES {
            return Err(ConfigError::OutOfRange {
                field: "cpuid_modifiers",
                given: wire.cpuid_modifiers.len() as u64,
                least: 0,
                most: MAX_LEAVES as u64,
            });
        }
        Ok(CpuConfig {
            cpuid_modifiers: wire.cpuid_modifiers,
        })
    }
}

/// Numbers written as text: `0x1f`, `0b101` or `31`.
mod number {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{number:#x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
        let text = String::deserialize(from)?;
        let (digits, radix) = if let Some(digits) = text.strip_prefix("0x") {
            (digits, 16)
        } else if let Some(digits) = text.strip_prefix("0b") {
            (digits, 2)
        } else {
            (text.as_str(), 10)
        };
        if digits.starts_with('+') {
            return Err(D::Error::custom("a number has no sign"));
        }
        u32::from_str_radix(digits, radix)
            .map_err(|_| D::Error::custom("a number of 32 bits was expected, as 0x1f, 0b101 or 31"))
    }
}
