//! How much may be under way to a member: as much as CUBIC allows, and never less than a floor.
//!
//! Owns: that floor. Must never: take a loss for a full link as long as little is under way. Made by `endpoint` for each connection.
//!
//! Members say little, and wait for each other: on a link that loses packets for another reason than that it is full (radio, a worn cable) CUBIC goes
//! down to two packets and, as there is hardly more to send than that, never comes up again; then each append waits for room.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

use crate::limits::PEER_WINDOW_MIN;

/// Makes [`Floored`] controllers.
#[derive(Debug)]
pub(super) struct FlooredConfig;

impl ControllerFactory for FlooredConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Floored(Arc::new(CubicConfig::default()).build(now, current_mtu)))
    }
}

/// CUBIC above a floor.
struct Floored(Box<dyn Controller>);

impl Controller for Floored {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.0.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.0.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.0.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.0.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.0.window().max(PEER_WINDOW_MIN)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.0.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self(self.0.clone_box()))
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window().max(PEER_WINDOW_MIN)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MTU: u16 = 1200;
    const LOSSES: u32 = 100;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "what is under test takes no other time")]
    fn losses_leave_room_for_what_members_say() {
        let began = Instant::now();
        let mut floored = Arc::new(FlooredConfig).build(began, MTU);
        let mut cubic = Arc::new(CubicConfig::default()).build(began, MTU);
        for n in 1..=LOSSES {
            let now = began + Duration::from_secs(1) * n;
            for controller in [&mut floored, &mut cubic] {
                controller.on_congestion_event(now, now, n % 2 == 0, MTU.into());
            }
        }
        assert!(cubic.window() < PEER_WINDOW_MIN, "it is CUBIC that gives way");
        assert_eq!(floored.window(), PEER_WINDOW_MIN);
        assert_eq!(floored.clone_box().window(), PEER_WINDOW_MIN);
    }
}
