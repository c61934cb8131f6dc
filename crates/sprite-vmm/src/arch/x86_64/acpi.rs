//! The ACPI tables: what the guest is told of its hardware.
//!
//! ```text
//! RSDP → XSDT → FADT → DSDT (devices), MADT (CPUs and the I/O APIC)
//! ```
//!
//! The hardware is "reduced" in ACPI's words: no timer, no fixed events and no system control interrupt of
//! ACPI's own. Reset and power-off are registers of ours ([`crate::power`]); what happens at run time comes by
//! the generic event device, one interrupt line for the only event there is: a new generation id.
//!
//! Source: ACPI 6.5; the ids of devices are those that Linux knows: `LNRO0005` is `virtio_mmio`,
//! `VM_Gen_Counter` is `vmgenid`, `ACPI0013` the generic event device, `PNP0501` a serial port.

use acpi_tables::aml::{
    Arg, Device, EISAName, Equal, IO, If, Interrupt, Memory32Fixed, Method, Name, Notify, Package,
    Path, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use vm_memory::{Bytes, GuestAddress};

use super::interrupts::EVENT_LINE;
use super::layout::{ACPI_END, ACPI_START, GENERATION_ID, IO_APIC, LOCAL_APIC};
use crate::memory::GuestMemory;
use crate::{power, serial};

const MAKER: [u8; 6] = *b"SPRITE";
const TABLE: [u8; 8] = *b"SPRITVMM";
/// Counts up when the tables' contents change.
const REVISION: u32 = 1;

/// FADT: no VGA, and no clock chip with battery. Source: ACPI 6.5, table 5.11.
const NO_VGA: u16 = 1 << 2;
const NO_CLOCK_CHIP: u16 = 1 << 5;

/// Where in the table's header its own length is.
const DSDT_REVISION: u8 = 2;

/// A virtio device as the guest finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioSlot {
    /// Its registers.
    pub address: u32,
    /// How long they are.
    pub length: u32,
    /// Its interrupt line.
    pub line: u32,
}

/// What the tables tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// How many CPUs; their APIC ids count from 0.
    pub cpus: u8,
    /// The virtio devices in the order in which the guest is to find them.
    pub virtio: Vec<VirtioSlot>,
}

/// A failure to write the tables.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// More devices than there is room for.
    #[error("describe the hardware in {bytes} bytes of ACPI tables")]
    Space {
        /// How long the tables became.
        bytes: usize,
    },
    /// The guest has no memory there.
    #[error("write the ACPI tables")]
    Write(#[source] vm_memory::GuestMemoryError),
}

/// Writes the tables to their place. What comes back is the address of the first.
///
/// # Errors
/// [`AcpiError`].
pub fn write(memory: &GuestMemory, hardware: &Hardware) -> Result<GuestAddress, AcpiError> {
    let bytes = tables(hardware);
    if bytes.len() as u64 > ACPI_END - ACPI_START.0 {
        return Err(AcpiError::Space { bytes: bytes.len() });
    }
    memory
        .write_slice(&bytes, ACPI_START)
        .map_err(AcpiError::Write)?;
    Ok(ACPI_START)
}

/// All tables, as they lie from [`ACPI_START`] on.
fn tables(hardware: &Hardware) -> Vec<u8> {
    let mut bytes = vec![0; Rsdp::len().next_multiple_of(16)];
    let mut put = |table: &dyn Aml| {
        let address = ACPI_START.0 + bytes.len() as u64;
        table.to_aml_bytes(&mut bytes);
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        address
    };
    let dsdt = put(&devices(hardware));
    let fadt = put(&fixed(dsdt));
    let madt = put(&interrupts(hardware.cpus));
    let mut roots = XSDT::new(MAKER, TABLE, REVISION);
    roots.add_entry(fadt);
    roots.add_entry(madt);
    let xsdt = put(&roots);
    let mut rsdp = Vec::new();
    Rsdp::new(MAKER, xsdt).to_aml_bytes(&mut rsdp);
    bytes[..rsdp.len()].copy_from_slice(&rsdp);
    bytes
}

/// A byte-wide register among the ports.
fn port(number: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        u64::from(number),
    )
}

/// FADT: the fixed hardware, of which there is almost none.
fn fixed(dsdt: u64) -> impl Aml {
    let mut table = FADTBuilder::new(MAKER, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    table.iapc_boot_arch = (NO_VGA | NO_CLOCK_CHIP).into();
    table.reset_reg = port(power::RESET);
    table.reset_value = power::RESET_VALUE;
    table.sleep_control_reg = port(power::SLEEP_CONTROL);
    table.sleep_status_reg = port(power::SLEEP_STATUS);
    table.finalize()
}

/// MADT: CPUs and the I/O APIC.
fn interrupts(cpus: u8) -> impl Aml {
    let mut table = MADT::new(
        MAKER,
        TABLE,
        REVISION,
        LocalInterruptController::Address(LOCAL_APIC),
    );
    for cpu in 0..cpus {
        table.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    // Its id must differ from those of the CPUs.
    table.add_structure(IoApic::new(cpus, IO_APIC, 0));
    table
}

/// A finished table.
struct Finished(Sdt);

impl Aml for Finished {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.0.as_slice());
    }
}

/// An edge-triggered interrupt of one device.
fn edge(line: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, line)
}

/// DSDT: the devices.
fn devices(hardware: &Hardware) -> Finished {
    let mut bytes = Vec::new();
    for (number, slot) in hardware.virtio.iter().enumerate() {
        let number = u8::try_from(number).expect("there are fewer interrupt lines than that");
        virtio(number, slot, &mut bytes);
    }
    serial_port(&mut bytes);
    generation_id(&mut bytes);
    events(&mut bytes);
    let mut table = Sdt::new(*b"DSDT", 36, DSDT_REVISION, MAKER, TABLE, REVISION);
    table.append_slice(&Scope::raw(Path::new("\\_SB_"), bytes));
    let mut sleep = Vec::new();
    Name::new(
        Path::new("\\_S5_"),
        &Package::new(vec![&power::SOFT_OFF, &0_u8, &0_u8, &0_u8]),
    )
    .to_aml_bytes(&mut sleep);
    table.append_slice(&sleep);
    Finished(table)
}

fn virtio(number: u8, slot: &VirtioSlot, bytes: &mut Vec<u8>) {
    let name = format!("VR{number:02}");
    Device::new(
        Path::new(&name),
        vec![
            &Name::new(Path::new("_HID"), &"LNRO0005"),
            &Name::new(Path::new("_UID"), &number),
            // What the device reads, the CPU's caches have seen.
            &Name::new(Path::new("_CCA"), &1_u8),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &Memory32Fixed::new(true, slot.address, slot.length),
                    &edge(slot.line),
                ]),
            ),
        ],
    )
    .to_aml_bytes(bytes);
}

fn serial_port(bytes: &mut Vec<u8>) {
    let length = u8::try_from(serial::PORT_LENGTH).expect("eight ports");
    Device::new(
        Path::new("COM1"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
            &Name::new(Path::new("_UID"), &0_u8),
            &Name::new(Path::new("_DDN"), &"COM1"),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &edge(serial::INTERRUPT),
                    &IO::new(serial::PORT, serial::PORT, 1, length),
                ]),
            ),
        ],
    )
    .to_aml_bytes(bytes);
}

/// Source: "Virtual Machine Generation ID", Microsoft; `drivers/virt/vmgenid.c` of Linux.
fn generation_id(bytes: &mut Vec<u8>) {
    let low = u32::try_from(GENERATION_ID.0).expect("it is in the first MiB");
    Device::new(
        Path::new("VGID"),
        vec![
            &Name::new(Path::new("_HID"), &"SPRT0001"),
            &Name::new(Path::new("_CID"), &"VM_Gen_Counter"),
            &Name::new(Path::new("_DDN"), &"VM_Gen_Counter"),
            &Name::new(Path::new("ADDR"), &Package::new(vec![&low, &0_u32])),
        ],
    )
    .to_aml_bytes(bytes);
}

/// The generic event device. Source: ACPI 6.5, 5.6.9 "Interrupt-signaled ACPI events".
fn events(bytes: &mut Vec<u8>) {
    let changed = Path::new("\\_SB_.VGID");
    Device::new(
        Path::new("GED_"),
        vec![
            &Name::new(Path::new("_HID"), &"ACPI0013"),
            &Name::new(Path::new("_UID"), &0_u8),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![&edge(EVENT_LINE)]),
            ),
            &Method::new(
                Path::new("_EVT"),
                1,
                true,
                vec![&If::new(
                    &Equal::new(&Arg(0), &EVENT_LINE),
                    vec![&Notify::new(&changed, &0x80_u8)],
                )],
            ),
        ],
    )
    .to_aml_bytes(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hardware(cpus: u8, devices: u32) -> Hardware {
        Hardware {
            cpus,
            virtio: (0..devices)
                .map(|number| VirtioSlot {
                    address: 0xc000_1000 + number * 0x1000,
                    length: 0x1000,
                    line: 6 + number,
                })
                .collect(),
        }
    }

    fn number(bytes: &[u8], at: usize, length: usize) -> usize {
        bytes[at..at + length]
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | usize::from(*byte))
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// The table that lies at an address of the guest, checked.
    fn table(bytes: &[u8], address: usize, signature: &[u8; 4]) -> Vec<u8> {
        let at = address - usize::try_from(ACPI_START.0).expect("small");
        let length = number(bytes, at + 4, 4);
        let table = &bytes[at..at + length];
        assert_eq!(&table[..4], signature);
        assert_eq!(sum(table), 0, "checksum of {signature:?}");
        table.to_vec()
    }

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn a_guest_that_follows_the_pointers_finds_every_table() {
        let bytes = tables(&hardware(2, 3));
        assert_eq!(&bytes[..8], b"RSD PTR ");
        assert_eq!((sum(&bytes[..20]), sum(&bytes[..36])), (0, 0));
        let xsdt = table(&bytes, number(&bytes, 24, 8), b"XSDT");
        assert_eq!(xsdt.len(), 36 + 2 * 8);
        let fadt = table(&bytes, number(&xsdt, 36, 8), b"FACP");
        let madt = table(&bytes, number(&xsdt, 44, 8), b"APIC");
        table(&bytes, number(&fadt, 140, 8), b"DSDT");
        // Two CPUs with their APIC ids, enabled, and one I/O APIC.
        let entries = &madt[44..];
        assert_eq!(
            &entries[..16],
            [0, 8, 0, 0, 1, 0, 0, 0, 0, 8, 1, 1, 1, 0, 0, 0]
        );
        assert_eq!(&entries[16..19], [1, 12, 2]);
        assert_eq!(entries.len(), 28);
    }

    #[test]
    fn the_fixed_hardware_is_reduced_and_can_be_reset_and_switched_off() {
        let mut bytes = Vec::new();
        fixed(0).to_aml_bytes(&mut bytes);
        let flags = number(&bytes, 112, 4);
        assert_ne!(flags & 1 << 20, 0, "reduced hardware");
        assert_ne!(flags & 1 << 10, 0, "reset register");
        assert_eq!(number(&bytes, 120, 8), usize::from(power::RESET));
        assert_eq!(bytes[128], power::RESET_VALUE);
        assert_eq!(number(&bytes, 248, 8), usize::from(power::SLEEP_CONTROL));
        assert_eq!(number(&bytes, 260, 8), usize::from(power::SLEEP_STATUS));
        // The state that the sleep register calls soft off.
        let off = [0x08, b'\\', b'_', b'S', b'5', b'_', 0x12];
        let dsdt = devices(&hardware(1, 0)).0.as_slice().to_vec();
        assert!(contains(&dsdt, &off));
    }

    #[test]
    fn every_device_is_described_with_its_registers_and_its_line() {
        let hardware = hardware(1, 18);
        let bytes = devices(&hardware).0.as_slice().to_vec();
        for slot in &hardware.virtio {
            let mut memory = vec![0x86, 9, 0, 1];
            memory.extend(slot.address.to_le_bytes());
            memory.extend(slot.length.to_le_bytes());
            // An extended interrupt: consumer, edge, active high, exclusive; one line.
            memory.extend([0x89, 6, 0, 0b0011, 1]);
            memory.extend(slot.line.to_le_bytes());
            assert!(contains(&bytes, &memory), "{slot:?}");
        }
        assert_eq!(
            bytes.windows(8).filter(|id| id == b"LNRO0005").count(),
            hardware.virtio.len()
        );
        for id in [&b"VM_Gen_Counter"[..], b"ACPI0013", b"COM1"] {
            assert!(contains(&bytes, id));
        }
    }

    #[test]
    fn the_largest_machine_has_room_for_its_tables() {
        let memory = crate::memory::anonymous(1 << 20).expect("memory");
        let largest = hardware(32, super::super::interrupts::VIRTIO_LINES);
        assert_eq!(write(&memory, &largest).ok(), Some(ACPI_START));
    }

    proptest! {
        #[test]
        fn all_checksums_are_right_for_any_hardware(cpus in 1_u8..=32, devices in 0_u32..=18) {
            let bytes = tables(&hardware(cpus, devices));
            prop_assert_eq!(sum(&bytes[..36]), 0);
            let xsdt = table(&bytes, number(&bytes, 24, 8), b"XSDT");
            let fadt = table(&bytes, number(&xsdt, 36, 8), b"FACP");
            table(&bytes, number(&xsdt, 44, 8), b"APIC");
            table(&bytes, number(&fadt, 140, 8), b"DSDT");
        }
    }
}
