//! What the rules tier says, in English and Russian. One function for each sentence; facts are put in as they are.

use std::time::Duration;

use crate::config::Language;

use Language::{English, Russian};

/// The sentences of one language.
#[derive(Clone, Copy, Debug)]
pub struct Texts(pub Language);

/// `45s`, `7m`, `3h`, `2d`: the unit that says enough.
pub fn short_duration(d: Duration) -> String {
    match d.as_secs() {
        s @ 0..=89 => format!("{s}s"),
        s @ 90..=5399 => format!("{}m", (s + 30) / 60),
        s @ 5400..=172_799 => format!("{}h", (s + 1800) / 3600),
        s => format!("{}d", (s + 43_200) / 86_400),
    }
}

impl Texts {
    fn duration(self, d: Duration) -> String {
        let text = short_duration(d);
        let (number, unit) = text.split_at(text.len() - 1);
        match (self.0, unit) {
            (English, "s") => format!("{number} s"),
            (English, "m") => format!("{number} min"),
            (English, "h") => format!("{number} h"),
            (English, _) => format!("{number} d"),
            (Russian, "s") => format!("{number} с"),
            (Russian, "m") => format!("{number} мин"),
            (Russian, "h") => format!("{number} ч"),
            (Russian, _) => format!("{number} дн"),
        }
    }

    pub fn symptom(self, alerts: &str) -> String {
        match self.0 {
            English => format!("What broke: {alerts}"),
            Russian => format!("Что сломалось: {alerts}"),
        }
    }

    /// `lead`: how long before the onset.
    pub fn change(self, what: &str, lead: Duration) -> String {
        let lead = self.duration(lead);
        match self.0 {
            English => format!("A change came {lead} before the onset: {what}"),
            Russian => format!("За {lead} до начала было изменение: {what}"),
        }
    }

    pub fn errors(self, service: &str, what: &str) -> String {
        match self.0 {
            English => format!("{service} logs errors that it usually does not: {what}"),
            Russian => format!("{service} пишет в журнал необычные ошибки: {what}"),
        }
    }

    pub fn lines(self, service: &str, what: &str) -> String {
        match self.0 {
            English => format!("{service} logs errors: {what}"),
            Russian => format!("{service} пишет в журнал ошибки: {what}"),
        }
    }

    pub fn silence(self, service: &str, what: &str) -> String {
        match self.0 {
            English => format!("{service} has fallen silent, it may be down or hanging: {what}"),
            Russian => format!("{service} замолчал, возможно, остановился или завис: {what}"),
        }
    }

    pub fn metric(self, service: &str, what: &str) -> String {
        match self.0 {
            English => format!("A metric of {service} has left its usual range: {what}"),
            Russian => format!("Метрика {service} вышла за обычные пределы: {what}"),
        }
    }

    pub fn dependency(self, service: &str, neighbour: &str, what: &str) -> String {
        match self.0 {
            English => format!("{neighbour}, on which {service} depends, is in trouble too: {what}"),
            Russian => format!("{neighbour}, от которого зависит {service}, тоже не в порядке: {what}"),
        }
    }

    pub fn past(self, what: &str) -> String {
        match self.0 {
            English => format!("It happened before: {what}"),
            Russian => format!("Такое уже было: {what}"),
        }
    }

    pub fn probable(self, claim: &str) -> String {
        match self.0 {
            English => format!("Most likely: {claim}"),
            Russian => format!("Вероятнее всего: {claim}"),
        }
    }

    pub fn no_clear_cause(self, facts: usize) -> String {
        match self.0 {
            English => format!("No clear cause among the facts at hand ({facts})."),
            Russian => format!("Среди имеющихся фактов ({facts}) явной причины нет."),
        }
    }

    pub fn incomplete(self, sources: &str) -> String {
        match self.0 {
            English => format!("Not everything could be asked: {sources}."),
            Russian => format!("Не всё удалось опросить: {sources}."),
        }
    }

    pub fn helped_before(self, incident: &str) -> String {
        match self.0 {
            English => format!("It helped before: {incident}"),
            Russian => format!("Помогло в прошлый раз: {incident}"),
        }
    }

    pub fn fits(self, when: &str) -> String {
        match (self.0, when) {
            (English, "") => "It fits this incident.".into(),
            (Russian, "") => "Подходит к этому инциденту.".into(),
            (English, when) => format!("It fits this incident: {when}"),
            (Russian, when) => format!("Подходит к этому инциденту: {when}"),
        }
    }

    pub fn no_model(self, reasons: &str) -> String {
        match self.0 {
            English => format!("no language model answered ({reasons})"),
            Russian => format!("ни одна языковая модель не ответила ({reasons})"),
        }
    }

    /// What the prompt calls the language of the answer.
    pub fn language_name(self) -> &'static str {
        match self.0 {
            English => "English",
            Russian => "Russian",
        }
    }
}
