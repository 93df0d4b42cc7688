//! The timing of elections.

/// The timing of elections. All members of a cluster have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ElectionConfig {
    /// The leader says so this often, in milliseconds; 1 to half of `timeout_ms_min`.
    pub heartbeat_ms: u32,
    /// The shortest wait for a heartbeat before a campaign, in milliseconds. What a lease is made
    /// of.
    pub timeout_ms_min: u32,
    /// The longest; each wait is drawn anew. More than `timeout_ms_min`, at most 3,600,000.
    pub timeout_ms_max: u32,
    /// By how much the rate of a clock may be wrong, in millionths; below 100,000, default 1,000.
    /// Quartz is within 100.
    pub clock_error_ppm: u32,
    /// Taken off a lease, in milliseconds; default 1. For what a driver takes to publish it.
    pub margin_ms: u32,
}

impl ElectionConfig {
    /// For one building: heartbeats every 50 ms, 150 to 300 ms without one start a campaign.
    pub const fn lan() -> Self {
        Self {
            heartbeat_ms: 50,
            timeout_ms_min: 150,
            timeout_ms_max: 300,
            clock_error_ppm: 1_000,
            margin_ms: 1,
        }
    }

    /// For lines across the world: 500 ms, 2.5 to 5 s.
    pub const fn wan() -> Self {
        Self { heartbeat_ms: 500, timeout_ms_min: 2_500, timeout_ms_max: 5_000, ..Self::lan() }
    }

    /// For those that sleep: 5 s, 20 to 40 s.
    pub const fn battery() -> Self {
        Self { heartbeat_ms: 5_000, timeout_ms_min: 20_000, timeout_ms_max: 40_000, ..Self::lan() }
    }

    /// Whether the numbers go together.
    ///
    /// # Errors
    /// The first rule that they break.
    pub const fn check(&self) -> Result<(), ConfigError> {
        if self.heartbeat_ms == 0 || self.heartbeat_ms > self.timeout_ms_min / 2 {
            return Err(ConfigError::Heartbeat);
        }
        if self.timeout_ms_max <= self.timeout_ms_min || self.timeout_ms_max > 3_600_000 {
            return Err(ConfigError::Timeout);
        }
        if self.clock_error_ppm >= 100_000 {
            return Err(ConfigError::ClockError);
        }
        if self.lease_us() <= self.heartbeat_ms as u64 * 1_000 {
            return Err(ConfigError::Margin);
        }
        Ok(())
    }

    /// How long a leader may say that it leads, from when the heartbeat was made that a majority
    /// has answered, in microseconds.
    pub const fn lease_us(&self) -> u64 {
        let error = if self.clock_error_ppm > 100_000 { 100_000 } else { self.clock_error_ppm };
        let timeout_us = self.timeout_ms_min as u64 * 1_000;
        // Of clocks that are wrong by `error`, one too fast and one too slow, (1 - error) / (1 + error) of
        // the timeout is left, and that is above 1 - 2 error. In parts of 2^20 and not of a million, rounded
        // up, so that a device need not divide.
        let error_parts = error + error / 20 + 1;
        let lost_us = ((timeout_us * 2 * error_parts as u64) >> 20) + 1;
        timeout_us.saturating_sub(lost_us + self.margin_ms as u64 * 1_000)
    }
}

impl Default for ElectionConfig {
    fn default() -> Self {
        Self::lan()
    }
}

/// Which number of an [`ElectionConfig`] does not go with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ConfigError {
    /// `heartbeat_ms` is 0 or more than half of `timeout_ms_min`.
    Heartbeat,
    /// `timeout_ms_max` is not more than `timeout_ms_min`, or more than 3,600,000.
    Timeout,
    /// `clock_error_ppm` is 100,000 or more.
    ClockError,
    /// `margin_ms` leaves a lease that is not longer than `heartbeat_ms`.
    Margin,
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Heartbeat => "heartbeat_ms must be 1 to half of timeout_ms_min",
            Self::Timeout => "timeout_ms_max must be more than timeout_ms_min, at most 3600000",
            Self::ClockError => "clock_error_ppm must be below 100000",
            Self::Margin => "margin_ms leaves a lease that is not longer than heartbeat_ms",
        })
    }
}

impl core::error::Error for ConfigError {}
