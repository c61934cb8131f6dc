use super::Rng;
use crate::virtio::driver::{Buffer, Driver};

#[test]
fn requests_are_filled_with_randomness_up_to_a_limit() {
    let rng = Rng::new().expect("a device");
    let metrics = rng.metrics();
    let mut driver = Driver::start(Box::new(rng), 0);
    let first = driver.request(0, &[Buffer::Writable(64)]);
    let second = driver.request(0, &[Buffer::Writable(64)]);
    assert_eq!((first.written, second.written), (64, 64));
    assert_ne!(first.bytes, second.bytes);
    let long = driver.request(0, &[Buffer::Writable(100_000)]);
    assert_eq!(long.written, 256, "a request is answered, not obeyed");
    assert_eq!(metrics.requests.total(), 3);
    assert_eq!(metrics.bytes.total(), 64 + 64 + 256);
}

#[test]
fn a_request_without_room_comes_back_empty() {
    let mut driver = Driver::start(Box::new(Rng::new().expect("a device")), 0);
    assert_eq!(
        driver.request(0, &[Buffer::Readable(vec![1; 8])]).written,
        0
    );
}

#[test]
fn a_full_ring_is_served_by_one_notification() {
    let mut driver = Driver::start(Box::new(Rng::new().expect("a device")), 0);
    for _ in 0..64 {
        driver.offer(0, &[Buffer::Writable(8)]);
    }
    driver.notify(0);
    let mut served = 0;
    while served < 64 {
        served += driver.wait_used(0).len();
    }
}
