//! The options of `perennial set-consumer`, and the request they make.

use clap::Args;
use perennial::proto::{SetConsumerRequest, set_consumer_request::Start};

use super::{
    TIME_FORMS,
    messages::{StartPoint, start_point},
};
use crate::time;

const EXAMPLES: &str = "\
A reader that is connected would undo this with its next commit, so the server refuses while there is one: end it first. \
The command prints the consumer at its new position, as `perennial consumers` does.

Examples:
  perennial set-consumer billing --to earliest
  perennial set-consumer billing --to yesterday
  perennial set-consumer billing --to 4711";

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{TIME_FORMS}"))]
pub struct SetConsumer {
    /// The consumer; it is created if it does not exist
    pub name: String,
    /// Begin with the next message (new), the oldest one (earliest), a SEQUENCE, or a TIME
    #[arg(long, value_name = "START", value_parser = start_point, allow_hyphen_values = true)]
    to: StartPoint,
}

impl SetConsumer {
    /// The reading of a local time that daylight saving skips or repeats.
    pub fn note(&self) -> Option<&str> {
        self.to.note()
    }

    pub fn request(&self) -> SetConsumerRequest {
        let start = match &self.to {
            StartPoint::New => Start::FromNow(true),
            StartPoint::Earliest => Start::Earliest(true),
            StartPoint::Sequence(sequence) => Start::FromSequence(*sequence),
            StartPoint::Time(moment) => Start::FromTime(time::timestamp_to_proto(moment.time)),
        };
        SetConsumerRequest { consumer: self.name.clone(), start: Some(start) }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        it: SetConsumer,
    }

    fn start(to: &str) -> Start {
        let program = Program::try_parse_from(["program", "billing", "--to", to]).unwrap();
        let request = program.it.request();
        assert_eq!(request.consumer, "billing");
        request.start.unwrap()
    }

    #[test]
    fn each_start_is_a_field_of_the_request() {
        assert_eq!(start("new"), Start::FromNow(true));
        assert_eq!(start("earliest"), Start::Earliest(true));
        assert_eq!(start("4711"), Start::FromSequence(4711));
        let time = prost_types::Timestamp { seconds: 1_795_456_800, nanos: 0 };
        assert_eq!(start("@1795456800"), Start::FromTime(time));
    }

    #[test]
    fn a_position_is_required_and_must_be_a_start() {
        for words in [&["program", "billing"][..], &["program", "billing", "--to", "late"]] {
            assert!(Program::try_parse_from(words).is_err(), "{words:?}");
        }
    }
}
