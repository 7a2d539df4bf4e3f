//! How units get their new code, where the configuration has a say.

use serde::{Deserialize, Serialize};

/// How a running unit gets its new code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// As the packages' scripts ask and the reasons demand.
    #[default]
    Automatic,
    /// Told to reload where others are restarted, for units that take new code that way. One that
    /// cannot reload is left alone.
    Reload,
    /// As [`Strategy::Automatic`], but its stop and its start may take as long as the unit's own limits
    /// allow, ten minutes at the most.
    Graceful,
    /// Restarted, also where a reload is asked for.
    Restart,
    /// Restarted after the switch, one unit of its group after the other, each only once the one before
    /// has stayed up for the dwell time.
    Rolling,
    /// Not restarted: it takes its new code at the next boot. Stopped all the same when its package
    /// goes.
    Defer,
    /// Never touched, whatever asks for it.
    Never,
}

impl Strategy {
    /// As configuration and programs write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Reload => "reload",
            Self::Graceful => "graceful",
            Self::Restart => "restart",
            Self::Rolling => "rolling",
            Self::Defer => "defer",
            Self::Never => "never",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Strategy;

    #[test]
    fn every_strategy_is_written_as_it_is_read() {
        for strategy in [
            Strategy::Automatic,
            Strategy::Reload,
            Strategy::Graceful,
            Strategy::Restart,
            Strategy::Rolling,
            Strategy::Defer,
            Strategy::Never,
        ] {
            let text = serde_json::to_string(&strategy).unwrap();
            assert_eq!(text, format!("{:?}", strategy.name()));
            assert_eq!(serde_json::from_str::<Strategy>(&text).unwrap(), strategy);
        }
    }
}
