//! What the daemon's own connection hears: commands, readers and controllers, Home Assistant's start, and what the broker keeps of us.

use super::*;

impl Worker {
    /// From now on every connection asks what the broker keeps of our own `birth`, until the ear is closed.
    pub fn hear_kept(&mut self) -> KeptEar {
        let (mouth, ear) = KeptMouth::pair();
        self.kept = Some(mouth);
        ear
    }

    /// Asks for everything that is heard, in one packet.
    pub(super) fn subscribe(&self, client: &AsyncClient, session: &mut Session) {
        let mut filters = Vec::new();
        if self.kept.as_ref().is_some_and(KeptMouth::is_open) {
            filters.push(self.kept_filter());
        }
        if self.lanes.is_some() {
            // What a reader read is worth nothing later: at QoS 0 no broker keeps it for when we come back.
            filters.extend([
                Filter::new(self.topic("cmd/+"), QoS::AtLeastOnce),
                Filter::new(self.topic("door/+/credential"), QoS::AtMostOnce),
                Filter::new(self.topic("door/+/passage"), QoS::AtLeastOnce),
                Filter::new(self.settings.home_assistant_birth_topic.clone(), QoS::AtLeastOnce),
            ]);
        }
        if !filters.is_empty() && !session.filters.ask(client, filters) {
            log::error!("the MQTT client took no subscription: no command will be heard");
        }
    }

    fn kept_filter(&self) -> Filter {
        Filter::new(self.topic(kept::TOPIC), QoS::AtLeastOnce)
    }

    pub(super) fn tell_kept(&self, kept: impl FnOnce() -> Kept) {
        if let Some(mouth) = &self.kept {
            mouth.tell(kept());
        }
    }

    /// Takes in what the broker says to what we want to hear: each topic has its own answer.
    pub(super) fn subscribed(&self, answer: &SubAck, session: &mut Session) {
        for answer in session.filters.answered(answer) {
            let is_kept = answer.filter == self.topic(kept::TOPIC);
            if let Some(reason) = answer.refusal.as_ref().filter(|_| answer.is_news) {
                let broker = format!("{}:{}", self.settings.host, self.settings.port);
                let text = Problem::Unreadable { broker, topic: answer.filter, reason: reason.clone() }.to_string();
                log::error!("{text}");
                self.shared.note_refusal(text);
            }
            if is_kept {
                self.tell_kept(|| answer.refusal.map_or(Kept::Asked, Kept::Refused));
            }
        }
    }

    /// What was refused, and what is to be heard once more.
    pub(super) fn ask_again(&self, client: &AsyncClient, session: &mut Session) {
        session.filters.ask_again(client);
        if self.kept.as_ref().is_some_and(KeptMouth::wants_again) {
            let filter = self.kept_filter();
            session.filters.ask(client, vec![filter]);
        }
    }
}
