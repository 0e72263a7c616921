//! Subscriptions of one connection, each judged by its own code: one that the broker refuses takes nothing from the others, is told by its
//! name, and is tried again while the connection stands, because access rules are mended without a restart of ours.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::v5::{Filter, SubAck, SubscribeReasonCode};

/// How soon a refused filter is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// What a connection has asked to hear.
#[derive(Default)]
pub(super) struct Filters {
    /// Given to the client, in order, not yet sent.
    handed: VecDeque<Vec<Filter>>,
    /// Sent, not yet answered, by packet id.
    sent: HashMap<u16, Vec<Filter>>,
    refused: Vec<Filter>,
    again_at: Option<Instant>,
}

/// The broker's word on one filter.
pub(super) struct Answer {
    pub(super) filter: String,
    /// Why it is refused.
    pub(super) refusal: Option<String>,
    /// Whether the last answer on this connection was another.
    pub(super) is_news: bool,
}

impl Filters {
    /// Asks for all of these in one packet; false when the client has no room.
    pub(super) fn ask(&mut self, client: &AsyncClient, filters: Vec<Filter>) -> bool {
        let asked = client.try_subscribe_many(filters.clone()).is_ok();
        if asked {
            self.handed.push_back(filters);
        }
        asked
    }

    /// The client has sent the oldest packet under this id.
    pub(super) fn sent(&mut self, id: u16) {
        if let Some(filters) = self.handed.pop_front() {
            self.sent.insert(id, filters);
        }
    }

    /// What the broker says of each filter of one packet. Refused ones are asked for again after a while.
    pub(super) fn answered(&mut self, answer: &SubAck) -> Vec<Answer> {
        let filters = self.sent.remove(&answer.pkid).unwrap_or_default();
        // A broker that leaves a code out has not granted that filter.
        let codes = answer.return_codes.iter().map(Some).chain(std::iter::repeat(None));
        let answers = filters.into_iter().zip(codes).map(|(filter, code)| {
            let refusal = match code {
                Some(SubscribeReasonCode::Success(_)) => None,
                Some(code) => Some(format!("{code:?}")),
                None => Some("no answer".to_owned()),
            };
            let path = filter.path.clone();
            let before = self.refused.len();
            self.refused.retain(|other| other.path != path);
            let is_news = refusal.is_some() == (self.refused.len() == before);
            if refusal.is_some() {
                self.refused.push(filter);
                self.again_at = Some(Instant::now() + AGAIN);
            }
            Answer { filter: path, refusal, is_news }
        });
        answers.collect()
    }

    /// Whether nothing is refused.
    pub(super) fn is_whole(&self) -> bool {
        self.refused.is_empty()
    }

    /// Asks for the refused ones once more if it is time.
    pub(super) fn ask_again(&mut self, client: &AsyncClient) {
        if !self.refused.is_empty() && self.again_at.is_some_and(|at| Instant::now() >= at) {
            self.again_at = Some(Instant::now() + AGAIN);
            self.ask(client, self.refused.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::QoS;

    use super::*;

    fn filters(names: &[&str]) -> Vec<Filter> {
        names.iter().map(|name| Filter::new(*name, QoS::AtLeastOnce)).collect()
    }

    fn suback(pkid: u16, return_codes: Vec<SubscribeReasonCode>) -> SubAck {
        SubAck { pkid, return_codes, properties: None }
    }

    #[test]
    fn each_filter_is_judged_by_its_own_code_and_a_code_that_is_missing_grants_nothing() {
        let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
        let mut all = Filters::default();
        all.handed.extend([filters(&["decision", "keys"]), filters(&["birth"])]);
        all.sent(7);
        all.sent(8);
        let mut words = |answer: &SubAck| -> Vec<(String, Option<String>)> {
            all.answered(answer).into_iter().map(|answer| (answer.filter, answer.refusal)).collect()
        };
        assert_eq!(words(&suback(8, Vec::new())), [("birth".to_owned(), Some("no answer".to_owned()))]);
        let codes = vec![granted, SubscribeReasonCode::NotAuthorized];
        let wanted = [("decision".to_owned(), None), ("keys".to_owned(), Some("NotAuthorized".to_owned()))];
        assert_eq!(words(&suback(7, codes)), wanted);
        assert!(words(&suback(7, vec![granted])).is_empty(), "an answer that nobody asked for");
        let refused: Vec<&str> = all.refused.iter().map(|filter| filter.path.as_str()).collect();
        assert_eq!(refused, ["birth", "keys"]);
        assert!(all.again_at.is_some() && !all.is_whole());
    }
}
