//! Machines of a few instructions on `/dev/kvm`: run, devices, pause, save, load, end.

mod guests;

use guests::{
    COUNTER, Program, RESULT, SIGNAL, Setting, end_of, eventually, kvm_opens, peek, poke,
};
use serde_json::Value;
use sprite_vmm::arch::native::cpuid::Misfit;
use sprite_vmm::end::End;
use sprite_vmm::vm::LoadError;
use vm_memory::{Bytes, GuestAddress};

#[test]
fn a_guest_prints_and_restarts() {
    if !kvm_opens() {
        return;
    }
    let setting = Setting::of(Program::Hello);
    let vm = setting.boot();
    assert_eq!(end_of(&vm), End::Reset);
    drop(vm);
    assert_eq!(setting.console(), "hi\n");
}

#[test]
fn each_way_to_end_is_told() {
    if !kvm_opens() {
        return;
    }
    for (program, end) in [
        (Program::AcpiReset, End::Reset),
        (Program::PowerOff, End::PowerOff),
        (Program::TripleFault, End::TripleFault),
    ] {
        assert_eq!(end_of(&Setting::of(program).boot()), end, "{program:?}");
    }
}

#[test]
fn a_running_guest_can_be_dropped() {
    if !kvm_opens() {
        return;
    }
    let vm = Setting::of(Program::Count).boot();
    eventually(&vm, COUNTER, |count| count > 0);
    drop(vm);
}

#[test]
fn a_paused_guest_does_nothing_and_goes_on_when_told() {
    if !kvm_opens() {
        return;
    }
    let mut vm = Setting::of(Program::Count).boot();
    for _ in 0..50 {
        let before = peek(&vm, COUNTER);
        eventually(&vm, COUNTER, |count| count != before);
        vm.pause().expect("paused");
        vm.pause().expect("paused already");
        let paused = peek(&vm, COUNTER);
        // A save goes through the vCPU's thread, so by then it would have counted.
        vm.save().expect("saved");
        assert_eq!(peek(&vm, COUNTER), paused);
        vm.resume().expect("resumed");
    }
}

#[test]
fn what_is_at_an_address_is_the_devices_or_nobodys() {
    if !kvm_opens() {
        return;
    }
    let vm = Setting::of(Program::Device).entropy().boot();
    assert_eq!(end_of(&vm), End::Reset);
    assert_eq!(peek(&vm, COUNTER).to_le_bytes(), *b"virt");
    assert_eq!(peek(&vm, RESULT), u32::MAX);
}

#[test]
fn a_second_cpu_starts_when_the_first_calls_it_and_both_survive_a_load() {
    if !kvm_opens() {
        return;
    }
    let setting = Setting::of(Program::SecondCpu).vcpus(2);
    let mut vm = setting.boot();
    let count = eventually(&vm, COUNTER, |count| count > 0);
    vm.pause().expect("paused");
    let saved = setting.save(vm);
    let mut vm = setting.load(&saved);
    let before = peek(&vm, GuestAddress(0x9000));
    assert!(before >= count);
    vm.resume().expect("resumed");
    eventually(&vm, COUNTER, |count| count > before);
}

#[test]
fn a_loaded_guest_goes_on_where_it_was_with_all_its_registers() {
    if !kvm_opens() {
        return;
    }
    let setting = Setting::of(Program::Registers);
    let mut vm = setting.boot();
    eventually(&vm, COUNTER, |ready| ready == 1);
    vm.pause().expect("paused");
    let mut saved = setting.save(vm);
    // Save, load, save: equal but for what must differ, many times over.
    for _ in 0..5 {
        let vm = setting.load(&saved);
        saved = setting.save(vm);
    }
    let mut vm = setting.load(&saved);
    poke(&vm, SIGNAL, 1);
    vm.resume().expect("resumed");
    assert_eq!(end_of(&vm), End::Reset);
    assert_eq!(peek(&vm, RESULT), 0x1000, "bits tell what was lost");
}

#[test]
fn a_machine_that_is_loaded_and_saved_again_is_the_same_but_for_its_time() {
    if !kvm_opens() {
        return;
    }
    let setting = Setting::of(Program::Registers).vcpus(2).entropy();
    let mut vm = setting.boot();
    eventually(&vm, COUNTER, |ready| ready == 1);
    vm.pause().expect("paused");
    let first = setting.save(vm);
    let second = setting.save(setting.load(&first));
    let differing = differences("", &timeless(first.text()), &timeless(second.text()));
    assert_eq!(differing, Vec::<String>::new());
}

/// Where two states differ.
fn differences(path: &str, one: &Value, other: &Value) -> Vec<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => one
            .iter()
            .flat_map(|(key, value)| differences(&format!("{path}.{key}"), value, &other[key]))
            .collect(),
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => one
            .iter()
            .zip(other)
            .enumerate()
            .flat_map(|(at, (one, other))| differences(&format!("{path}[{at}]"), one, other))
            .collect(),
        (one, other) if one == other => Vec::new(),
        (one, other) => vec![format!("{path}: {one} became {other}")],
    }
}

/// A state without what differs from moment to moment.
fn timeless(state: &str) -> Value {
    let mut state: Value = serde_json::from_str(state).expect("valid");
    state["platform"]["clock"] = Value::Null;
    // The interval timer has three channels of 24 bytes; the last eight say when it was set, by the host's time.
    for channel in 0..3 {
        for byte in 16..24 {
            state["platform"]["timer"][channel * 24 + byte] = Value::Null;
        }
    }
    for vcpu in state["vcpus"].as_array_mut().expect("vCPUs") {
        vcpu["time"] = Value::Null;
    }
    state
}

#[test]
fn a_guest_is_refused_where_its_cpu_is_not() {
    if !kvm_opens() {
        return;
    }
    let saved = || {
        let setting = Setting::of(Program::Count);
        let mut vm = setting.boot();
        vm.pause().expect("paused");
        let saved = setting.save(vm);
        (setting, saved)
    };
    // Leaf 0: function, index, flags, eax, and then the maker's name.
    let (setting, state) = saved();
    let state = state.edit(|state| {
        let leaves = state["vcpus"][0]["cpuid"].as_array_mut().expect("leaves");
        let is_first = |leaf: &&mut Value| (0..8).all(|byte| leaf[byte] == 0);
        let leaf = leaves.iter_mut().find(is_first).expect("leaf 0");
        leaf[16] = Value::from(b'X');
    });
    let refused = setting.try_to_load(&state).err();
    assert!(matches!(
        refused,
        Some(LoadError::Misfit(Misfit::Vendor { .. }))
    ));

    // Leaf 7, of which ecx, from byte 20 on, holds features that no CPU has together.
    let (setting, state) = saved();
    let state = state.edit(|state| {
        let leaves = state["vcpus"][0]["cpuid"].as_array_mut().expect("leaves");
        let is_seventh = |leaf: &&mut Value| leaf[0] == 7 && (1..8).all(|byte| leaf[byte] == 0);
        let leaf = leaves.iter_mut().find(is_seventh).expect("leaf 7");
        leaf[22] = Value::from(0xff);
    });
    let refused = setting.try_to_load(&state).err();
    assert!(matches!(
        refused,
        Some(LoadError::Misfit(Misfit::Features { leaf: 7, .. }))
    ));
}

#[test]
fn a_state_is_refused_for_a_machine_of_another_shape() {
    if !kvm_opens() {
        return;
    }
    let setting = Setting::of(Program::Count);
    let mut vm = setting.boot();
    vm.pause().expect("paused");
    let saved = setting.save(vm);
    let others = [setting.vcpus(2), Setting::of(Program::Count).entropy()];
    for setting in &others {
        let refused = setting.try_to_load(&saved).err();
        assert!(matches!(refused, Some(LoadError::Count { .. })));
    }
}

#[test]
fn a_guest_that_ended_is_not_run_again() {
    if !kvm_opens() {
        return;
    }
    let mut vm = Setting::of(Program::Hello).boot();
    assert_eq!(end_of(&vm), End::Reset);
    vm.pause().expect("paused");
    vm.resume().expect("nothing to do");
    vm.pause().expect("paused");
    assert_eq!(vm.console(), b"hi\n");
}

#[test]
fn what_a_loaded_guest_writes_is_its_own() {
    if !kvm_opens() {
        return;
    }
    let setting = Setting::of(Program::Count);
    let mut vm = setting.boot();
    eventually(&vm, COUNTER, |count| count > 0);
    vm.pause().expect("paused");
    let before = peek(&vm, COUNTER);
    let saved = setting.save(vm);
    let (mut one, mut other) = (setting.load(&saved), setting.load(&saved));
    one.resume().expect("resumed");
    eventually(&one, COUNTER, |count| count > before);
    assert_eq!(peek(&other, COUNTER), before);
    other.resume().expect("resumed");
    eventually(&other, COUNTER, |count| count > before);
}

#[test]
fn a_timer_that_was_set_before_the_save_comes_after_the_load() {
    if !kvm_opens() {
        return;
    }
    let setting = Setting::of(Program::Timer);
    let mut vm = setting.boot();
    eventually(&vm, COUNTER, |ready| ready == 1);
    vm.pause().expect("paused");
    assert_eq!(peek(&vm, RESULT), 0, "it comes later");
    let saved = setting.save(vm);
    let mut vm = setting.load(&saved);
    vm.resume().expect("resumed");
    assert_eq!(end_of(&vm), End::Reset);
    assert_eq!(peek(&vm, RESULT), 1);
}

#[test]
fn a_loaded_guest_has_a_new_generation_id_and_is_told() {
    if !kvm_opens() {
        return;
    }
    let setting = Setting::of(Program::GenerationId);
    let mut vm = setting.boot();
    eventually(&vm, COUNTER, |ready| ready == 1);
    vm.pause().expect("paused");
    let saved = setting.save(vm);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut vm = setting.load(&saved);
        vm.resume().expect("resumed");
        assert_eq!(end_of(&vm), End::Reset);
        let id: u128 = vm
            .memory()
            .read_obj(GuestAddress(0x9_f000))
            .expect("in memory");
        assert_eq!(u128::from(peek(&vm, RESULT)), id & u128::from(u32::MAX));
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
    assert_ne!(ids[0], 0);
}
