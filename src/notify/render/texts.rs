//! The words that people read, in every language, one row for each.

use crate::config::Language;

/// A counted noun: English uses `one` and `many`; Russian also `few` (2–4, 22–24 …).
pub struct Plural {
    pub one: &'static str,
    pub few: &'static str,
    pub many: &'static str,
}

macro_rules! texts {
    (words { $($word:ident: $en:literal, $ru:literal;)+ } plurals { $($plural:ident: [$($pen:literal),+], [$($pru:literal),+];)+ }) => {
        /// `{}` stands for a value; see [`fill`].
        pub struct Texts { pub language: Language, $(pub $word: &'static str,)+ $(pub $plural: Plural,)+ }
        static ENGLISH: Texts = Texts { language: Language::English, $($word: $en,)+ $($plural: texts!(@ $($pen),+),)+ };
        static RUSSIAN: Texts = Texts { language: Language::Russian, $($word: $ru,)+ $($plural: texts!(@ $($pru),+),)+ };
        #[cfg(test)]
        const ROWS: &[(&str, &str)] = &[$(($en, $ru)),+];
    };
    (@ $one:literal, $many:literal) => { Plural { one: $one, few: $many, many: $many } };
    (@ $one:literal, $few:literal, $many:literal) => { Plural { one: $one, few: $few, many: $many } };
}

texts! {
    words {
        critical: "CRITICAL", "КРИТИЧНО";
        warning: "WARNING", "ВНИМАНИЕ";
        info: "INFO", "ИНФО";
        resolved: "RESOLVED", "РЕШЕНО";
        acknowledged: "ACKNOWLEDGED", "В РАБОТЕ";
        since: "since {}", "с {}";
        acknowledged_by: "Acknowledged by {}.", "Взял в работу: {}.";
        resolved_at: "Resolved at {} after {}", "Решено в {}, длилось {}";
        resolved_by: "by: {}", "причина: {}";
        flapping: "Its alerts come and go too often: further changes are held back until it calms down.",
            "Алерты срабатывают и гаснут слишком часто: дальнейшие изменения придут, когда всё успокоится.";
        what_broke: "What broke", "Что сломалось";
        ended: "ended {}", "до {}";
        why: "Why we think so", "Почему мы так думаем";
        no_diagnosis: "No diagnosis yet.", "Диагноза пока нет.";
        by_rules: "By rules, in {}.", "По правилам, за {}.";
        by_local: "By the local model {}, in {}.", "Локальная модель {}, за {}.";
        by_cloud: "By the cloud model {}, in {}, ${}.", "Облачная модель {}, за {}, ${}.";
        unchecked: "A model wrote this; the evidence it cites is real, its reasoning is not checked.",
            "Это написала модель: факты настоящие, рассуждения не проверены.";
        missing: "Not known", "Чего мы не знаем";
        proposal: "What we propose", "Что предлагаем";
        on_target: "on {}", "на {}";
        rollback: "If it does not help, undo:", "Если не поможет, откат:";
        no_rollback: "No rollback is defined.", "Отката нет.";
        then_verify: "Then check within {}, holding for {}:", "Затем проверка в пределах {}, удержание {}:";
        no_verify: "Success is not checked afterwards.", "Успех потом не проверяется.";
        plan: "plan {}", "план {}";
        expires: "expires {}", "истекает {}";
        too_long: "The plan is too long to show here, so it cannot be approved here: aiops incident show {}",
            "План слишком длинный, чтобы показать его здесь, поэтому здесь его не одобрить: aiops incident show {}";
        press: "Press Approve to run exactly this plan, once; or Reject.",
            "«Одобрить» выполнит ровно этот план, один раз; или «Отклонить».";
        press_cli: "To run exactly this plan, once: aiops approve {}", "Выполнить ровно этот план, один раз: aiops approve {}";
        press_open: "Nobody has taken it yet.", "Пока никто не взял в работу.";
        approved_by: "Approved by {}.", "Одобрил: {}.";
        rejected_by: "Rejected by {}.", "Отклонил: {}.";
        approval_expired: "Nobody answered in time: the proposal expired and nothing was done.",
            "Никто не ответил вовремя: предложение истекло, ничего не сделано.";
        run: "What was done", "Что сделано";
        run_running: "Running", "Выполняется";
        run_needs_human: "NEEDS A HUMAN", "НУЖЕН ЧЕЛОВЕК";
        run_verifying: "Checking whether it helped", "Проверяем, помогло ли";
        run_rolling_back: "Undoing", "Откатываем";
        run_succeeded: "Done and verified", "Сделано и проверено";
        run_done_unverified: "Done, not verified", "Сделано, не проверено";
        run_failed: "FAILED", "НЕ УДАЛОСЬ";
        run_rolled_back: "Did not help; undone", "Не помогло; откатили";
        run_cancelled: "Cancelled", "Отменено";
        unknown_outcome: "outcome unknown", "исход неизвестен";
        timeline: "Timeline", "Хронология";
        open_in_browser: "Open in the browser", "Открыть в браузере";
        undelivered: "Could not reach: {}", "Не удалось доставить: {}";
        approve: "Approve", "Одобрить";
        reject: "Reject", "Отклонить";
        ack: "Acknowledge", "Взять в работу";
        resolve: "Resolve", "Решено";
        subject_approval: "approval needed", "нужно одобрение";
        subject_human: "needs a human", "нужен человек";
        subject_failed: "the fix failed", "исправление не удалось";
        ring_approval: "The exact plan, and how to answer, stand in the message above.",
            "Точный план и как на него ответить — в сообщении выше.";
        ring_run: "What was done, and what is left to do, stands in the message above.",
            "Что сделано и что осталось сделать — в сообщении выше.";
        wait: "wait {}", "ждать {}";
        expect_empty: "returns nothing", "ничего не возвращает";
        expect_present: "returns something", "что-то возвращает";
        expect_above: "is above {}", "больше {}";
        expect_below: "is below {}", "меньше {}";
        expect_equals: "equals {}", "равно {}";
        day: "{} d", "{} д";
        hour: "{} h", "{} ч";
        minute: "{} min", "{} мин";
        second: "{} s", "{} с";
        millisecond: "{} ms", "{} мс";
    }
    plurals {
        firing: ["{} alert firing", "{} alerts firing"], ["{} алерт горит", "{} алерта горят", "{} алертов горят"];
        more_alerts: ["and {} more alert", "and {} more alerts"], ["и ещё {} алерт", "и ещё {} алерта", "и ещё {} алертов"];
        alerts_total: ["{} alert in all", "{} alerts in all"], ["всего {} алерт", "всего {} алерта", "всего {} алертов"];
        more_facts: ["and {} more fact", "and {} more facts"], ["и ещё {} факт", "и ещё {} факта", "и ещё {} фактов"];
        steps: ["{} step", "{} steps"], ["{} шаг", "{} шага", "{} шагов"];
    }
}

impl Texts {
    pub fn of(language: Language) -> &'static Self {
        match language {
            Language::English => &ENGLISH,
            Language::Russian => &RUSSIAN,
        }
    }

    /// The form of `noun` that goes with `n`, with the number in its place.
    pub fn count(&self, noun: &Plural, n: i64) -> String {
        let form = self.language.form(n, noun.one, noun.few, noun.many);
        fill(form, &[&n.to_string()])
    }
}

/// Puts the values where the `{}` are, in order. Values are not looked into, so a `{}` in one stays as it is.
pub fn fill(template: &str, values: &[&str]) -> String {
    let mut pieces = template.split("{}");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for (i, piece) in pieces.enumerate() {
        out.push_str(values.get(i).copied().unwrap_or_default());
        out.push_str(piece);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn russian_counts_agree() {
        let t = Texts::of(Language::Russian);
        let said = |n| t.count(&t.firing, n);
        for n in [1, 21, 101] {
            assert_eq!(said(n), format!("{n} алерт горит"));
        }
        for n in [2, 4, 22, 103] {
            assert_eq!(said(n), format!("{n} алерта горят"));
        }
        for n in [0, 5, 11, 12, 14, 20, 111, 112] {
            assert_eq!(said(n), format!("{n} алертов горят"));
        }
    }

    #[test]
    fn both_languages_take_the_same_values() {
        for (en, ru) in ROWS {
            assert_eq!(en.matches("{}").count(), ru.matches("{}").count(), "{en}");
        }
    }

    #[test]
    fn values_are_not_templates() {
        assert_eq!(fill("a {} b {}", &["{}", "2"]), "a {} b 2");
    }
}
