//! The programs. They are entered in 32-bit protected mode with flat segments and no stack.

use std::arch::global_asm;

/// A guest.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    /// Prints a line and resets by the keyboard controller.
    Hello,
    /// Resets by ACPI's register.
    AcpiReset,
    /// Powers off by ACPI's register.
    PowerOff,
    /// Does what no CPU can do, without a table of handlers.
    TripleFault,
    /// Counts in memory for ever.
    Count,
    /// Fills registers, waits for a signal, and tells whether they are still the same: in memory, and by a `y` or
    /// an `n` on its console.
    Registers,
    /// Reads the magic number of the first virtio device, then an address where nothing is.
    Device,
    /// Starts the second CPU, which counts; the first one waits.
    SecondCpu,
    /// Sets the local APIC's timer to a second and a half and halts until it comes.
    Timer,
    /// Halts until the line of the generation id is raised.
    GenerationId,
}

impl Program {
    /// Its instructions.
    pub fn code(self) -> &'static [u8] {
        macro_rules! between {
            ($start:ident, $end:ident) => {{
                unsafe extern "C" {
                    static $start: u8;
                    static $end: u8;
                }
                let (start, end) = (&raw const $start, &raw const $end);
                // SAFETY: the two labels enclose bytes of this program's read-only data, made below.
                unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
            }};
        }
        match self {
            Program::Hello => between!(guest_hello, guest_hello_end),
            Program::AcpiReset => between!(guest_acpi_reset, guest_acpi_reset_end),
            Program::PowerOff => between!(guest_power_off, guest_power_off_end),
            Program::TripleFault => between!(guest_triple_fault, guest_triple_fault_end),
            Program::Count => between!(guest_count, guest_count_end),
            Program::Registers => between!(guest_registers, guest_registers_end),
            Program::Device => between!(guest_device, guest_device_end),
            Program::SecondCpu => between!(guest_second_cpu, guest_second_cpu_end),
            Program::Timer => between!(guest_timer, guest_timer_end),
            Program::GenerationId => between!(guest_generation_id, guest_generation_id_end),
        }
    }
}

global_asm!(
    r#"
    .pushsection .rodata.guests, "a"
    .code32

    .macro reset
        mov $0xfe, %al
        out %al, $0x64
    9:  hlt
        jmp 9b
    .endm

    /* A stack, segments and a table of handlers of which entry 0x20 leads to \handler. */
    .macro interrupts start, handler
        mov $0x300000, %esp
        /* The descriptor table: none, code, data, at 0x210000. */
        movl $0, 0x210000
        movl $0, 0x210004
        movl $0x0000ffff, 0x210008
        movl $0x00cf9b00, 0x21000c
        movl $0x0000ffff, 0x210010
        movl $0x00cf9300, 0x210014
        movw $23, 0x210100
        movl $0x210000, 0x210102
        lgdt 0x210100
        ljmp $8, $(0x100000 + 8f - \start)
    8:  mov $16, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        /* The interrupt table at 0x211000; an entry: offset low, selector, kind, offset high. */
        movl $(0x100000 + \handler - \start), %eax
        movw %ax, 0x211100
        movw $8, 0x211102
        movw $0x8e00, 0x211104
        shr $16, %eax
        movw %ax, 0x211106
        movw $0x7ff, 0x210100
        movl $0x211000, 0x210102
        lidt 0x210100
        /* The local APIC: enabled, spurious interrupts to 0xff. */
        movl $0x1ff, 0xfee000f0
    .endm

    .global guest_hello, guest_hello_end
    guest_hello:
        mov $0x3f8, %dx
        mov $'h', %al
        out %al, %dx
        mov $'i', %al
        out %al, %dx
        mov $10, %al
        out %al, %dx
        reset
    guest_hello_end:

    .global guest_acpi_reset, guest_acpi_reset_end
    guest_acpi_reset:
        mov $0x602, %dx
        mov $0x42, %al
        out %al, %dx
        jmp .
    guest_acpi_reset_end:

    .global guest_power_off, guest_power_off_end
    guest_power_off:
        mov $0x600, %dx
        mov $0x34, %al
        out %al, %dx
        jmp .
    guest_power_off_end:

    .global guest_triple_fault, guest_triple_fault_end
    guest_triple_fault:
        ud2
    guest_triple_fault_end:

    .global guest_count, guest_count_end
    guest_count:
        lock incl 0x200000
        jmp guest_count
    guest_count_end:

    .global guest_registers, guest_registers_end
    guest_registers:
        /* CR4: OSFXSR. */
        mov %cr4, %eax
        or $0x200, %eax
        mov %eax, %cr4
        mov $0x11223344, %ebx
        mov $0x55667788, %esi
        mov %ebx, 0x200010
        movups 0x200010, %xmm7
        movl $0, 0x200010
        mov $0x0badcafe, %eax
        mov %eax, %dr0
        /* An MSR: STAR. */
        mov $0xc0000081, %ecx
        mov $0x12345678, %eax
        mov $0x9abcdef0, %edx
        wrmsr
        rdtsc
        mov %eax, %edi
        mov %edx, %ebp
        movl $1, 0x200000
    1:  cmpl $0, 0x200004
        je 1b
        /* Now the same must be there; what is not counts up. */
        xor %esp, %esp
        cmp $0x11223344, %ebx
        je 2f
        or $1, %esp
    2:  cmp $0x55667788, %esi
        je 2f
        or $2, %esp
    2:  movups %xmm7, 0x200010
        mov 0x200010, %eax
        cmp $0x11223344, %eax
        je 2f
        or $4, %esp
    2:  mov %dr0, %eax
        cmp $0x0badcafe, %eax
        je 2f
        or $8, %esp
    2:  mov $0xc0000081, %ecx
        rdmsr
        cmp $0x12345678, %eax
        je 2f
        or $16, %esp
    2:  cmp $0x9abcdef0, %edx
        je 2f
        or $32, %esp
    2:  /* Time does not go back, and an hour has not passed: the high halves are close. */
        rdtsc
        sub %edi, %eax
        sbb %ebp, %edx
        cmp $0x1000, %edx
        jb 2f
        or $64, %esp
    2:  or $0x1000, %esp
        mov %esp, 0x200008
        cmp $0x1000, %esp
        mov $'y', %al
        je 2f
        mov $'n', %al
    2:  mov $0x3f8, %dx
        out %al, %dx
        mov $10, %al
        out %al, %dx
        reset
    guest_registers_end:

    .global guest_device, guest_device_end
    guest_device:
        mov 0xc0001000, %eax
        mov %eax, 0x200000
        mov 0xd0000000, %eax
        mov %eax, 0x200008
        reset
    guest_device_end:

    .global guest_second_cpu, guest_second_cpu_end
    guest_second_cpu:
        /* To page 8, where it begins in 16-bit mode: lock incl 0x9000; jmp back. */
        movl $0x06ff66f0, 0x8000
        movl $0xf8eb9000, 0x8004
        movl $0x1ff, 0xfee000f0
        /* INIT, then start-up at page 8, to everyone but this one. */
        movl $0x000c4500, 0xfee00300
        movl $0x000c4608, 0xfee00300
        movl $0x000c4608, 0xfee00300
        movl $1, 0x200008
    1:  mov 0x9000, %eax
        mov %eax, 0x200000
        jmp 1b
    guest_second_cpu_end:

    .global guest_timer, guest_timer_end
    guest_timer:
        interrupts guest_timer, guest_timer_handler
        /* One shot, to entry 0x20, divided by one: KVM's timer counts nanoseconds. */
        movl $0x20, 0xfee00320
        movl $0xb, 0xfee003e0
        movl $1500000000, 0xfee00380
        sti
        movl $1, 0x200000
    1:  hlt
        jmp 1b
    guest_timer_handler:
        movl $1, 0x200008
        reset
    guest_timer_end:

    .global guest_generation_id, guest_generation_id_end
    guest_generation_id:
        interrupts guest_generation_id, guest_generation_id_handler
        /* The I/O APIC's input 5, which two registers describe from 0x1a on: to entry 0x20 of CPU 0. */
        movl $0x1b, 0xfec00000
        movl $0, 0xfec00010
        movl $0x1a, 0xfec00000
        movl $0x20, 0xfec00010
        sti
        movl $1, 0x200000
    1:  hlt
        jmp 1b
    guest_generation_id_handler:
        mov 0x9f000, %eax
        mov %eax, 0x200008
        reset
    guest_generation_id_end:

    .code64
    .popsection
    "#,
    options(att_syntax)
);
