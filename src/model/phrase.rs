//! Every sentence of ours that is kept with an incident or answered in a chat, in English and in Russian, one row for each.
//! English is for the API, the command line and the logs as well; the fixed frame of messages stands in `notify/render/texts.rs`.
//!
//! A row is stored by its name and its values: append and reword, but do not rename.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{IncidentState, Language, RunState, Said, Severity, StepState};

/// What can be put into a sentence.
trait Word {
    fn say(&self, language: Language) -> String;
    /// Hands on the texts in it that are not ours.
    fn each(&mut self, _change: &mut dyn FnMut(&mut String)) {}
    #[cfg(test)]
    fn sample() -> Self;
}

macro_rules! phrases {
    ($($name:ident { $($field:ident: $kind:ty),* } $en:literal, $ru:literal;)+) => {
        /// A sentence without its language.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Phrase { $($name { $($field: $kind),* }),+ }

        impl Phrase {
            #[allow(clippy::useless_format, reason = "rows without values are rows too")]
            pub fn say(&self, language: Language) -> String {
                match self {
                    $(Self::$name { $($field),* } => {
                        $(let $field = Word::say($field, language);)*
                        match language {
                            Language::English => format!($en),
                            Language::Russian => format!($ru),
                        }
                    })+
                }
            }

            /// Hands on what was put in, down to what is put into that.
            pub(super) fn each(&mut self, change: &mut dyn FnMut(&mut String)) {
                match self {
                    $(Self::$name { $($field),* } => { $(Word::each($field, change);)* let _ = &change; })+
                }
            }

            #[cfg(test)]
            fn samples() -> Vec<(Self, Vec<String>)> {
                vec![$((
                    Self::$name { $($field: Word::sample()),* },
                    vec![$(<$kind as Word>::sample().say(Language::Russian)),*],
                )),+]
            }
        }
    };
}

phrases! {
    // What happens to an incident.
    OfService { service: String, what: Said } "{service}: {what}", "{service}: {what}";
    AlertFiring { name: String, title: String } "{name} is firing: {title}", "{name} горит: {title}";
    AlertResolved { name: String, title: String } "{name} is resolved: {title}", "{name} погас: {title}";
    AnomalyOver { what: Said } "Over: {what}", "Закончилось: {what}";
    FiresAgain {} "It fires again", "Снова горит";
    Flapping { times: Times, within: Seconds, quiet: Seconds }
        "Flapping: it opened or resolved {times} within {within}; quiet until it has been stable for {quiet}",
        "Мигает: открылся или закрылся {times} за {within}; молчим, пока не будет спокойно {quiet}";
    Resolved { why: Said } "Resolved: {why}", "Решено: {why}";
    LastAlertResolved { name: String } "the last firing alert, {name}, resolved", "погас последний алерт, {name}";
    LastAnomalyOver {} "its last anomaly is over", "закончилась последняя аномалия";
    AlertsResolved {} "alerts resolved", "алерты погасли";
    ResolvedByHand {} "Resolved by hand", "Решено вручную";
    ResolvedByHandFor { reason: String } "Resolved by hand: {reason}", "Решено вручную: {reason}";
    Acknowledged {} "Acknowledged", "Взято в работу";

    // What detectors find.
    LogBurst { template: String, count: String, seconds: String, low: String, high: String }
        "`{template}`: {count} in {seconds} s, usually {low}–{high}",
        "`{template}`: {count} за {seconds} с, обычно {low}–{high}";
    LogBurstAtHour { template: String, count: String, seconds: String, low: String, high: String }
        "`{template}`: {count} in {seconds} s, usually {low}–{high} at this hour",
        "`{template}`: {count} за {seconds} с, в этот час обычно {low}–{high}";
    LogErrors { service: String, percent: String, lines: String, seconds: String, low: String, high: String }
        "{percent} % of {service}'s {lines} lines in {seconds} s are errors, usually {low}–{high} %",
        "{service}: ошибок {percent} % из {lines} строк за {seconds} с, обычно {low}–{high} %";
    LogValues { template: String, place: String, low: String, high: String, usual_low: String, usual_high: String }
        "`{template}`: value {place} is mostly {low}–{high}, usually {usual_low}–{usual_high}",
        "`{template}`: значение {place} в основном {low}–{high}, обычно {usual_low}–{usual_high}";
    LogNovelty { template: String, known: Span, service: String }
        "New error: `{template}`, never seen in {known} of {service}'s logs",
        "Новая ошибка: `{template}`, в логах {service} её не было ни разу за {known}";
    LogSilence { template: String, silent: String, usual: String }
        "`{template}`: silent for {silent} s, usually every {usual} s",
        "`{template}`: молчит {silent} с, обычно раз в {usual} с";
    MetricUsuallyConstant { series: String, value: String, usual: String, per: Per }
        "`{series}` is {value}{per}, always {usual}{per}",
        "`{series}`: {value}{per}, всегда было {usual}{per}";
    MetricUsuallyBetween { series: String, value: String, low: String, high: String, per: Per }
        "`{series}` is {value}{per}, usually {low}–{high}{per}",
        "`{series}`: {value}{per}, обычно {low}–{high}{per}";
    MetricRose { series: String, now: String, before: String, of: Values, per: Per }
        "`{series}` has risen to {now}{per} in the mean of its last {of}, from {before}{per}",
        "`{series}`: среднее выросло до {now}{per} с {before}{per} (окно: {of})";
    MetricFell { series: String, now: String, before: String, of: Values, per: Per }
        "`{series}` has fallen to {now}{per} in the mean of its last {of}, from {before}{per}",
        "`{series}`: среднее упало до {now}{per} с {before}{per} (окно: {of})";
    MetricSwingsMore { series: String }
        "`{series}` swings more than it usually does",
        "`{series}`: колеблется сильнее обычного";
    MetricSwingsLess { series: String }
        "`{series}` swings less than it usually does",
        "`{series}`: колеблется слабее обычного";
    MetricStill { series: String, value: String, of: Values, per: Per }
        "`{series}` has been {value}{per} for {of} in a row; it usually changes sooner",
        "`{series}`: {of} подряд {value}{per}, обычно меняется чаще";
    MetricOffHour { series: String, value: String, usual: String, per: Per }
        "`{series}` is {value}{per}, usually about {usual}{per} at this hour",
        "`{series}`: {value}{per}, в этот час обычно около {usual}{per}";
    MetricCourse { series: String, of: Values }
        "`{series}`: its last {of} take a course that was never seen",
        "`{series}`: такого хода ещё не было (окно: {of})";
    MetricDistribution { series: String, of: Values }
        "`{series}`: its last {of} are spread otherwise than they usually are",
        "`{series}`: значения распределены не так, как обычно (окно: {of})";

    // Evidence.
    FactsGathered { facts: Facts, ids: String } "{facts} gathered ({ids})", "Собрано: {facts} ({ids})";
    Change { what: String, of: String, summary: String, when: Said }
        "{what} of {of}: {summary}, {when}",
        "{what}, {of}: {summary}, {when}";
    ChangeBy { what: String, of: String, summary: String, author: String, when: Said }
        "{what} of {of}: {summary} by {author}, {when}",
        "{what}, {of}: {summary} (автор {author}), {when}";
    AtOnset {} "at the onset", "в самом начале";
    BeforeOnset { gap: Short } "{gap} before the onset", "за {gap} до начала";
    AfterOnset { gap: Short } "{gap} after the onset", "через {gap} после начала";
    PastIncident { id: String, day: String, lasted: Short, how: Said }
        "Incident {id} of {day} was alike, lasted {lasted}; {how}",
        "Похожий инцидент {id} от {day}, длился {lasted}; {how}";
    PlaybookHelped { playbook: String } "playbook {playbook} helped", "помог плейбук {playbook}";
    WasResolvedBy { by: Said } "resolved by: {by}", "решено: {by}";
    HowIsNotRecorded {} "how it was resolved is not recorded", "как решили, не записано";
    MetricNow { series: String, now: String } "{series}: {now} now", "{series}: сейчас {now}";
    MetricNowAndBefore { series: String, now: String, before: String }
        "{series}: {now} now, {before} before the onset",
        "{series}: сейчас {now}, до начала было {before}";
    LinesSeen { level: String, count: String, template: String }
        "{level} ×{count}: {template}",
        "{level} ×{count}: {template}";
    LinesSeenUsually { level: String, count: String, usual: String, template: String }
        "{level} ×{count}, usually about {usual}: {template}",
        "{level} ×{count}, обычно около {usual}: {template}";

    LogRate { service: String, lines: String, errors: String, before: String, errors_before: String }
        "{service} logs {lines} lines a minute around the onset, {errors} of them errors; before it {before}, {errors_before} errors",
        "{service}: строк лога в минуту около начала {lines}, из них ошибок {errors}; до него {before}, ошибок {errors_before}";
    LogRateNow { service: String, lines: String, errors: String }
        "{service} logs {lines} lines a minute around the onset, {errors} of them errors",
        "{service}: строк лога в минуту около начала {lines}, из них ошибок {errors}";
    LinesAroundOnset { level: String, count: String, before: String, window: Short, template: String }
        "{level} ×{count} around the onset, {before} in the {window} before: {template}",
        "{level} ×{count} около начала, {before} за {window} до него: {template}";
    LinesAroundOnsetOnly { level: String, count: String, template: String }
        "{level} ×{count} around the onset, never before: {template}",
        "{level} ×{count} около начала, раньше не было: {template}";
    OfTrace { what: Said, trace: String } "{what} (trace {trace})", "{what} (трасса {trace})";

    // Why a service is suspected.
    NewlyHappens { operation: String, what: Said, now: i64, of: i64, before: i64, of_before: i64 }
        "{operation}: {what} in {now} of {of} requests, usually in {before} of {of_before}",
        "{operation}: {what}, запросов {now} из {of}, обычно {before} из {of_before}";
    NoLongerHappens { operation: String, what: Said, now: i64, of: i64, before: i64, of_before: i64 }
        "{operation}: {what} is missing in {now} of {of} requests, usually in {before} of {of_before}",
        "{operation}: пропало ({what}), запросов {now} из {of}, обычно {before} из {of_before}";
    MissingDespite { operation: String, what: Said, given: Said, now: i64, of: i64, before: i64, of_before: i64 }
        "{operation}: {given}, but not {what} in {now} of {of} requests, usually in {before} of {of_before}",
        "{operation}: есть {given}, но пропало ({what}), запросов {now} из {of}, обычно {before} из {of_before}";
    ErrorGone { operation: String, what: Said } "{operation}: {what} is gone", "{operation}: больше не бывает ({what})";
    AnyLine {} "any log line", "хоть одна строка лога";
    OrdinaryLine { template: String } "the line `{template}`", "строка `{template}`";
    WarningLine { template: String } "the warning `{template}`", "предупреждение `{template}`";
    ErrorLine { template: String } "the error `{template}`", "ошибка `{template}`";
    CallOf { service: String, operation: String } "a call of {service} {operation}", "вызов {service} {operation}";
    InnerStep { operation: String } "the step {operation}", "шаг {operation}";
    ErrorStatus {} "an error status", "статус ошибки";
    SlowWork { now: i64, of: i64, before: i64, of_before: i64, more: String }
        "its own work is slow in {now} of {of} requests, usually in {before} of {of_before}; {more} ms more on average",
        "собственная работа медленная, запросов {now} из {of}, обычно {before} из {of_before}; в среднем дольше на {more} мс";
    SlowOperation { operation: String, now: i64, of: i64, before: i64, of_before: i64, more: String }
        "{operation} is slow by itself in {now} of {of} requests, usually in {before} of {of_before}; {more} ms more on average",
        "{operation} медленно само по себе, запросов {now} из {of}, обычно {before} из {of_before}; в среднем дольше на {more} мс";
    SlowCalls { service: String, now: i64, of: i64, before: i64, of_before: i64, more: String }
        "calls of {service} wait beyond its work in {now} of {of} requests, usually in {before} of {of_before}; {more} ms more on average",
        "вызовы {service} ждут дольше, чем он работает, запросов {now} из {of}, обычно {before} из {of_before}; в среднем на {more} мс";
    LineMoreOften { what: Said, now: i64, of: i64, before: i64, of_before: i64 }
        "{what} in {now} of {of} moments with log lines, usually in {before} of {of_before}",
        "{what}, моментов с логом {now} из {of}, обычно {before} из {of_before}";
    MetricAway { metric: String, now: String, usual: String, spread: String }
        "{metric} is {now}, usually {usual} ± {spread}",
        "{metric}: {now}, обычно {usual} ± {spread}";
    OwnSeconds { peak: String, service: String, percent: i64 }
        "up to {peak} s of its own work per step above the usual, without which {percent} % of the excess of {service} would be gone",
        "до {peak} с собственной работы за шаг сверх обычного, без них ушло бы {percent} % превышения {service}";
    OwnFailures { peak: String, service: String, percent: i64 }
        "up to {peak} failures of its own per step above the usual, without which {percent} % of the excess of {service} would be gone",
        "до {peak} собственных отказов за шаг сверх обычного, без них ушло бы {percent} % превышения {service}";

    Suspect { place: i64, service: String, reasons: Listed }
        "Suspect {place} is {service}: {reasons}",
        "Подозреваемый {place}: {service} ({reasons})";

    Reasons { reasons: Listed } "{reasons}", "{reasons}";

    // What could not be seen.
    SomeWatchedElsewhere {}
        "other replicas watch some of the services; those are not among the suspects",
        "за частью сервисов следят другие реплики, среди подозреваемых их нет";
    NoSuchIndex { index: String } "no index is called {index}", "нет индекса {index}";
    ShardsMissing { failed: i64, total: i64 }
        "{failed} of {total} parts of the index did not answer",
        "не ответили части индекса: {failed} из {total}";
    CutShort {} "the search was cut short by its time limit", "поиск прерван по времени, ответ неполный";
    MomentCutShort { most: i64 }
        "a moment with more than {most} lines is shown in part",
        "за один момент больше {most} строк, показаны не все";
    LinesNotKept { count: String }
        "{count} log lines of that time were not kept for search",
        "строк лога за это время не сохранено для поиска: {count}";
    CircuitOpen {} "circuit open", "предохранитель сработал, пока не спрашиваем";
    CircuitHalfOpen {}
        "circuit half-open, another call is testing it",
        "предохранитель сработал, связь проверяет другой запрос";
    TimedOut { after: Span } "timed out after {after}", "нет ответа за {after}";
    NotConfigured { setting: String } "not configured ({setting})", "не настроено ({setting})";
    NotAmongRules { alert: String }
        "the expression of {alert} is not among its rules",
        "выражения алерта {alert} нет среди правил";
    IsNotConfigured { setting: String } "is not configured ({setting})", "не настроен ({setting})";
    NoRange {} "gave something else than a range of values", "в ответе нет ряда значений";
    RefusesQuery { why: String } "refuses the query: {why}", "отвергает запрос: {why}";
    AnswerTooLong { bytes: i64 } "answered with more than {bytes} bytes", "ответ длиннее {bytes} байт";
    AnswerNotPromised { why: String }
        "gave an answer that its API does not promise: {why}",
        "ответ не по протоколу: {why}";
    Unreachable { why: String } "cannot be reached: {why}", "недоступен: {why}";
    AnsweredBadly { status: String, said: String } "answered {status}: {said}", "ответил {status}: {said}";
    NothingArrived { service: String }
        "no log line and no sample of {service} has arrived",
        "от {service} не пришло ни одной строки лога и ни одной метрики";
    NoLogBetween { from: String, to: String }
        "no log line between {from} and {to}",
        "нет строк лога между {from} и {to}";
    StillLearning { age: Seconds }
        "its logs are known for {age} only; still learning",
        "логи идут всего {age}, ещё учимся";
    NoLogFor { silent: Seconds, longest: Seconds }
        "no log line for {silent}; it never was silent for more than {longest}",
        "нет строк лога уже {silent}; раньше молчал не дольше {longest}";
    SamplesDropped { count: String, setting: String }
        "{count} samples were dropped: more series than {setting}",
        "отброшено значений метрик: {count}, рядов больше, чем {setting}";
    SeriesMissing { series: Said } "no sample of {series}", "нет значений {series}";
    SeriesMissingSince { series: Said, since: String }
        "no sample of {series} since {since}",
        "нет значений {series} с {since}";
    MoreSeries { series: String, more: SeriesCount }
        "{series} and {more}",
        "{series} и ещё {more}";
    GapSince { source: String, since: String, why: Said } "{source} since {since}: {why}", "{source} с {since}: {why}";
    WatchedElsewhere { service: String }
        "the telemetry of {service} is watched by another replica, or by none yet",
        "за телеметрией {service} следит другая реплика или пока никто";
    TelemetryLost { from: String, until: String, why: Said }
        "telemetry between {from} and {until} is incomplete: {why}",
        "телеметрия с {from} по {until} неполна: {why}";
    RecordsLost { source: String, records: String }
        "{records} records were lost in {source}",
        "в {source} потеряно записей: {records}";
    StreamEmptied { source: String }
        "{source} lost what was in it (restarted without its data, or flushed)",
        "{source} потерял всё, что в нём было (перезапущен без данных или очищен)";
    RecordsRefused { source: String, records: String }
        "{records} records found no room on their way to {source}; their senders were told to come again",
        "по пути в {source} не поместилось записей: {records}; отправителям сказано повторить";
    EntryUnreadable { records: String }
        "{records} records could not be read and were set aside",
        "не удалось прочитать, отложено записей: {records}";
    NoAnswer {} "no answer", "нет ответа";
    Restarted {}
        "aiops was restarted, and nobody keeps what came meanwhile",
        "был перезапуск, а пришедшее тем временем никто не хранит";
    NotAskedOverloaded {}
        "not asked, because aiops is overloaded; asked again later",
        "не спрашивали, потому что перегружены; спросим позже";
    TelemetryLeftOut { since: String }
        "its telemetry was left out since {since}, because aiops was overloaded and judged some services only",
        "с {since} его телеметрия не разбиралась: из-за перегрузки разбирали лишь часть сервисов";
    NoModelAnswered { reasons: Listed }
        "no language model answered ({reasons})",
        "ни одна языковая модель не ответила ({reasons})";
    RateLimited { why: String } "rate limited: {why}", "слишком много запросов: {why}";
    RefusesOurKey { why: String } "refuses our key: {why}", "не принимает наш ключ: {why}";
    NoSuchModel { why: String } "does not have the model: {why}", "нет такой модели: {why}";
    PromptTooLong { why: String }
        "the prompt is too long for the model: {why}",
        "запрос слишком длинный для модели: {why}";
    ModelDeclined { why: String } "the model declined: {why}", "модель отказалась: {why}";
    CutOff {} "the answer was cut off at the token limit", "ответ обрезан по лимиту токенов";
    Garbled { why: String } "the answer is not what the API promises: {why}", "ответ не по протоколу: {why}";
    WrongForm { why: String }
        "the answer does not have the agreed form: {why}",
        "ответ не в условленной форме: {why}";
    InventedEvidence { cited: String }
        "the answer cites {cited}, which was not sent",
        "ответ ссылается на {cited}, чего мы не посылали";
    PlaybookNotOffered { playbook: String }
        "the answer wants the playbook {playbook}, which was not offered",
        "ответ требует плейбук {playbook}, который не предлагали";
    ParamsNotOffered { why: String }
        "the answer gives parameters that were not offered: {why}",
        "в ответе параметры, которых не предлагали: {why}";
    Busy {} "busy with other questions until the time was up", "всё отведённое время занята другими вопросами";
    OverBudget { spent: i64, limit: i64, estimate: i64 }
        "over budget: {spent} of {limit} tokens are spent today, this needs about {estimate}",
        "лимит токенов: за сегодня потрачено {spent} из {limit}, нужно ещё около {estimate}";
    OfSource { source: String, why: Said } "{source}: {why}", "{source}: {why}";

    // Diagnosis by rules. A claim also stands after a colon, so Russian begins it with a small letter.
    Symptom { alerts: Said } "What broke: {alerts}", "Что сломалось: {alerts}";
    SymptomAndMore { alerts: Said, more: i64 } "What broke: {alerts} (+{more})", "Что сломалось: {alerts} (+{more})";
    ChangeBeforeOnset { lead: Lead, what: Said }
        "A change came {lead} before the onset: {what}",
        "за {lead} до начала было изменение: {what}";
    UnusualErrors { service: String, what: Said }
        "{service} logs errors that it usually does not: {what}",
        "{service} пишет в лог необычные ошибки: {what}";
    ErrorLines { service: String, what: Said } "{service} logs errors: {what}", "{service} пишет в лог ошибки: {what}";
    FellSilent { service: String, what: Said }
        "{service} has fallen silent, it may be down or hanging: {what}",
        "{service} молчит, возможно, упал или завис: {what}";
    MetricLeftItsRange { service: String, what: Said }
        "A metric of {service} has left its usual range: {what}",
        "метрика {service} вышла за обычные пределы: {what}";
    BeganIn { service: String, what: Said } "It began in {service}: {what}", "началось в {service}: {what}";
    BeganInOneOf { services: String, what: Said }
        "It began in one of these, which are about as likely: {services}. {what}",
        "началось в одном из этих, они примерно одинаково вероятны: {services}. {what}";
    DependencyInTrouble { neighbour: String, service: String, what: Said }
        "{neighbour}, on which {service} depends, is in trouble too: {what}",
        "{neighbour}, от которого зависит {service}, тоже не в порядке: {what}";
    HappenedBefore { what: Said } "It happened before: {what}", "такое уже было: {what}";
    MostLikely { claim: Said } "Most likely: {claim}", "Вероятнее всего: {claim}";
    NoClearCause { facts: i64 }
        "No clear cause among the facts at hand ({facts}).",
        "Среди имеющихся фактов ({facts}) явной причины нет.";
    NotAllAsked { summary: Said, sources: String }
        "{summary} Not everything could be asked: {sources}.",
        "{summary} Не всё удалось опросить: {sources}.";

    // Automation and its guards.
    StoppedBy { by: String } "stopped by {by}", "остановлена ({by})";
    StoppedByFor { by: String, reason: String } "stopped by {by}: {reason}", "остановлена ({by}: {reason})";
    AutomationIs { stopped: Said } "Automation is {stopped}", "Автоматика {stopped}";
    AutomationIsAlready { stopped: Said } "automation is {stopped} already", "автоматика уже {stopped}";
    AutomationIsGuard { stopped: Said } "automation is {stopped}", "автоматика {stopped}";
    AutomationRuns {} "automation runs", "автоматика работает";
    AutomationIsNotStopped {} "automation is not stopped", "автоматика не остановлена";
    StartItFirst { stopped: Said }
        "automation is {stopped}; start it first, or abort the run",
        "автоматика {stopped}; сначала запустите её или прервите выполнение";
    NothingElseActs { target: String } "nothing else acts on {target}", "больше ничто не работает с {target}";
    RunActs { run: String, target: String } "run {run} acts on {target}", "с {target} уже работает запуск {run}";
    AnotherRunActs { target: String } "another run acts on {target}", "с {target} уже работает другой запуск";
    RanLately { target: String, ago: Span, within: Span }
        "last run on {target} was {ago} ago; not again within {within}",
        "на {target} уже запускали {ago} назад; повтор не раньше чем через {within}";
    DidNotRunLately { target: String, within: Span }
        "no run on {target} within {within}",
        "на {target} не запускали за последние {within}";
    RunsOfAtMost { done: i64, most: i64, per: Span }
        "{done} of at most {most} runs within {per}",
        "запусков за {per}: {done}, можно не больше {most}";
    TargetsOfAtMost { others: i64, most: i64 }
        "{others} other targets within an hour; at most {most} in all",
        "других целей за час: {others}; всего можно не больше {most}";

    // Questions and their answers.
    NobodyAnswered { title: String }
        "Nobody answered in time; nothing was done: {title}",
        "Никто не ответил вовремя, ничего не сделано: {title}";
    WithReason { title: String, why: Said } "{title}: {why}", "{title}: {why}";
    Continue {} "continue", "продолжаем";
    Retry {} "retry", "повторяем шаг";
    RollBack {} "roll_back", "откатываем";
    Abort {} "abort", "прервано";
    AnsweredBy { answer: Said, by: String } "{answer} by {by}", "{answer} ({by})";
    AbortedBy { by: String } "aborted by {by}", "прервано ({by})";

    // Runs.
    StepStarted { step: String, does: String } "{step}: {does}", "{step}: {does}";
    StepTriedAgain { step: String, attempt: i64, does: String }
        "{step} (try {attempt}): {does}",
        "{step} (попытка {attempt}): {does}";
    InRollback { what: Said } "rollback {what}", "откат, {what}";
    StepEnded { step: String, state: StepState } "{step} {state}", "{step}: {state}";
    StepSaid { step: String, state: StepState, said: String } "{step} {state}: {said}", "{step}: {state}: {said}";
    StepFailed { step: String, end: String } "step {step} failed: {end}", "шаг {step} не удался: {end}";
    RollbackFailedToo { why: Said } "the rollback failed too: {why}", "откат тоже не удался: {why}";
    EveryStepSucceeded {} "every step succeeded", "все шаги выполнены";
    NothingToVerify {} "every step succeeded; nothing to verify", "все шаги выполнены; проверять нечего";
    NotTheAllowedPlan {}
        "the stored plan is not the one that was allowed; nothing more was run",
        "сохранённый план не совпадает с одобренным; больше ничего не запускали";
    OutcomeLost { step: String, does: String, answers: String, last: String }
        "Nobody knows whether step {step} was done ({does}): look, then say {answers} or {last}",
        "Неизвестно, выполнен ли шаг {step} ({does}): проверьте и ответьте {answers} или {last}";
    StoppedBeforeStep { stopped: Said, step: String }
        "Automation is {stopped}; stopped before step {step}",
        "Автоматика {stopped}; встали перед шагом {step}";
    StoppedInStep { stopped: Said, step: String }
        "Automation is {stopped}; stopped in step {step}",
        "Автоматика {stopped}; встали на шаге {step}";
    CutOffInStep { stopped: Said, step: String }
        "Automation is {stopped}; step {step} was cut off, and may be half done",
        "Автоматика {stopped}; шаг {step} прерван и мог выполниться наполовину";
    CancelledBy { by: String } "cancelled by {by}", "отменён ({by})";
    CancelledByFor { by: String, reason: String } "cancelled by {by}: {reason}", "отменён ({by}: {reason})";
    CancelledBeforeStep { cancelled: Said, step: String }
        "{cancelled}; stopped before step {step}",
        "{cancelled}; встал перед шагом {step}";
    CancelledInStep { cancelled: Said, step: String }
        "{cancelled}; stopped in step {step}, which had changed nothing",
        "{cancelled}; встал на шаге {step}, тот ничего не изменил";
    CancelCutOff { cancelled: Said, step: String }
        "The run is {cancelled}; step {step} was cut off, and may be half done",
        "Запуск {cancelled}; шаг {step} прерван и мог выполниться наполовину";
    CancelLost { cancelled: Said, step: String }
        "The run is {cancelled}; nobody knows whether step {step} was done",
        "Запуск {cancelled}; неизвестно, выполнен ли шаг {step}";
    CancelledUnseen { cancelled: Said }
        "{cancelled}; every step was done, whether it helped was not seen",
        "{cancelled}; все шаги выполнены, помогло ли, не проверили";
    Undone { title: String } "Undone: {title}", "Откатили: {title}";
    RunSucceeded { title: String } "{title}: succeeded", "{title}: успешно";
    RunEnded { title: String, state: RunState, why: Said } "{title}: {state}: {why}", "{title}: {state}: {why}";
    SomebodyHasToLook {} "Somebody has to look", "Нужно, чтобы кто-то посмотрел";

    // Verification.
    NoProbes {} "nothing to verify", "проверять нечего";
    Verified { what: Said } "The fix is verified: {what}", "Проверено, помогло: {what}";
    Held { answers: String, hold: Span, asked: Times }
        "{answers}; held for {hold}, asked {asked}",
        "{answers}; держится {hold}, спросили {asked}";
    DidNotHelp { what: Said } "It did not help: {what}", "Не помогло: {what}";
    DidNotHold { hold: Span, within: Span }
        "did not hold for {hold} within {within}",
        "за {within} не продержалось {hold}";
    NotWithin { answers: String, within: Span, asked: Times }
        "{answers}; not within {within}, asked {asked}",
        "{answers}; за {within} не дождались, спросили {asked}";
    NotSeen { stopped: Said }
        "Automation is {stopped}; whether it helped was not seen",
        "Автоматика {stopped}; помогло ли, не проверили";

    // Messages.
    Told { channel: String } "told {channel}", "сообщили: {channel}";
    Rang { channel: String } "rang {channel}", "позвали: {channel}";
    DidNotReach { channel: String, refused: String }
        "{channel} did not reach {refused}",
        "{channel} не дошёл до {refused}";
    CouldNotBeTold { channel: String, why: Said }
        "{channel} could not be told: {why}",
        "{channel}: не удалось сообщить: {why}";
    NotBeforeDeadline { deadline: Seconds, why: String }
        "not delivered before the deadline of {deadline}: {why}",
        "не доставлено за отведённое время ({deadline}): {why}";

    // Answers in chats.
    NoIncident { id: String } "there is no incident {id}", "нет инцидента {id}";
    NoApproval { id: String } "there is no approval {id}", "нет вопроса {id}";
    NoRun { id: String } "there is no run {id}", "нет запуска {id}";
    NoSilence { id: String } "there is no silence {id}", "нет заглушения {id}";
    SilenceIsOver { id: String } "silence {id} is over already", "заглушение {id} уже закончилось";
    ResolvedAlready { id: String } "incident {id} is resolved already", "инцидент {id} уже решён";
    ResolvedAlreadyBy { id: String, how: Said }
        "incident {id} is resolved already ({how})",
        "инцидент {id} уже решён ({how})";
    AcknowledgedAlready { by: String } "{by} has acknowledged it already", "уже в работе у {by}";
    ApprovedAlready { by: String } "{by} has approved this already", "это уже одобрил {by}";
    RejectedAlready { by: String } "{by} has rejected this already", "это уже отклонил {by}";
    QuestionExpired { at: String } "this question expired at {at}", "время на ответ вышло в {at}";
    QuestionClosed { why: Said } "this question is closed: {why}", "вопрос закрыт: {why}";
    NewerPlan {} "a newer plan took its place", "его сменил новый план";
    IncidentResolved {} "the incident was resolved", "инцидент решён";
    JustAnswered {} "somebody else has just answered this", "на это только что ответил кто-то другой";
    NotTheProposedPlan {}
        "the stored plan is not the one that was proposed; nothing was run",
        "сохранённый план не совпадает с предложенным; ничего не запускали";
    ShownAnotherPlan {}
        "you were shown another plan than this one; look at it again",
        "вам показали другой план; посмотрите ещё раз";
    PlanChanged {}
        "the plan is another one than you were shown; look at it again",
        "план уже не тот, что вам показали; посмотрите ещё раз";
    RunWaitsForNobody { run: String, state: RunState }
        "run {run} is {state}, it waits for nobody",
        "запуск {run} ответа не ждёт: {state}";
    RunIsOver { run: String, state: RunState } "run {run} is {state} already", "запуск {run} уже закончен: {state}";
    RunIsBeingCancelled { run: String, cancelled: Said }
        "run {run} is being {cancelled} already",
        "запуск {run} уже {cancelled}";
    ButtonUnknown {} "this button is not one of ours", "это не наша кнопка";
    ButtonElsewhere {} "this button belongs to another chat", "эта кнопка из другого чата";
    ButtonUsed {} "this button was used already", "эту кнопку уже нажимали";
    ButtonExpired {}
        "this button has expired; look at the newest message",
        "кнопка устарела; посмотрите последнее сообщение";
    ApprovedItStarts {} "Approved: it starts now", "Одобрено: начинаем";
    RejectedNothingDone {} "Rejected: nothing will be done", "Отклонено: ничего не делаем";
    YoursNow {} "It is yours now", "Теперь это ваше";
    ResolvedNow {} "Resolved", "Решено";
    NotAllowed {} "You are not allowed to do this", "Вам это не разрешено";
    NoOpenIncidents {} "No open incidents.", "Открытых инцидентов нет.";
    OpenIncidents { count: i64 } "Open incidents: {count}", "Открытых инцидентов: {count}";
    OpenIncident { id: String, severity: Severity, service: String, title: String, since: String, state: IncidentState }
        "#{id} {severity} {service} · {title} · {since} · {state}",
        "#{id} {severity} {service} · {title} · с {since} · {state}";
    Help { status: String, ack: String, resolve: String, id: String }
        "{status}: open incidents\n{ack} {id}: you look after it\n{resolve} {id} [reason]: it is over\n\
         The id is what stands after # in a message. Approve and reject by the buttons.",
        "{status}: открытые инциденты\n{ack} {id}: взять в работу\n{resolve} {id} [причина]: решено\n\
         {id} стоит в сообщении после #. Одобрить и отклонить можно кнопками.";
    HelpLogs { logs: String, back: String }
        "{logs} SERVICE [{back}] [error] [words]: its last log lines",
        "{logs} СЕРВИС [{back}] [ошибки] [слова]: последние строки лога";
    LogLines { count: i64, since: String }
        "Log lines since {since}, the newest first: {count}",
        "Строки лога с {since}, сначала новые: {count}";
    LogLinesAndMore { count: i64, since: String }
        "Log lines since {since}, the newest {count} of more:",
        "Строки лога с {since}, последние {count}, есть и ещё:";
    NoLogLines { since: String } "No such log line since {since}.", "Таких строк лога с {since} нет.";
    LogsUnavailable { why: Said } "The logs cannot be searched: {why}", "Поиск по логам недоступен: {why}";
    TooLate {}
        "This command reached me too late to be safe. Send it again if you still mean it.",
        "Команда дошла слишком поздно, чтобы её выполнять. Пришлите ещё раз, если она ещё нужна.";
}

impl fmt::Display for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.say(Language::English))
    }
}

impl Word for String {
    fn say(&self, _: Language) -> String {
        self.clone()
    }
    fn each(&mut self, change: &mut dyn FnMut(&mut String)) {
        change(self);
    }
    #[cfg(test)]
    fn sample() -> Self {
        "NAME".into()
    }
}

impl Word for Said {
    fn say(&self, language: Language) -> String {
        self.in_language(language)
    }
    fn each(&mut self, change: &mut dyn FnMut(&mut String)) {
        let mut part = std::mem::take(self);
        let taken = std::cell::RefCell::new(change);
        part = part.map(&|text| {
            let mut text = text.to_owned();
            (taken.borrow_mut())(&mut text);
            text
        });
        *self = part;
    }
    #[cfg(test)]
    fn sample() -> Self {
        Phrase::AlertFiring { name: Word::sample(), title: Word::sample() }.into()
    }
}

/// Several sentences in one, with `; ` between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed(pub Vec<Said>);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.say(Language::English))
    }
}

impl Word for Listed {
    fn say(&self, language: Language) -> String {
        self.0.iter().map(|said| said.in_language(language)).collect::<Vec<_>>().join("; ")
    }
    fn each(&mut self, change: &mut dyn FnMut(&mut String)) {
        self.0.iter_mut().for_each(|said| said.each(change));
    }
    #[cfg(test)]
    fn sample() -> Self {
        Self(vec![Word::sample(), Word::sample()])
    }
}

impl Word for i64 {
    fn say(&self, _: Language) -> String {
        self.to_string()
    }
    #[cfg(test)]
    fn sample() -> Self {
        3
    }
}

macro_rules! states {
    ($($kind:ident { $($state:ident: $russian:literal),+ $(,)? })+) => {$(
        impl Word for $kind {
            fn say(&self, language: Language) -> String {
                match (language, self) {
                    (Language::English, _) => self.as_str(),
                    $((Language::Russian, Self::$state) => $russian,)+
                }
                .to_owned()
            }
            #[cfg(test)]
            fn sample() -> Self {
                Self::ALL[0]
            }
        }
    )+};
}

states! {
    Severity { Info: "инфо", Warning: "внимание", Critical: "критично" }
    IncidentState { Open: "открыт", Acknowledged: "в работе", Resolved: "решён" }
    RunState {
        Running: "выполняется", NeedsHuman: "нужен человек", Verifying: "идёт проверка", RollingBack: "идёт откат",
        Succeeded: "успешно", Failed: "не удалось", RolledBack: "откатили", Cancelled: "отменено",
    }
    StepState { Intended: "начат", Succeeded: "выполнен", Failed: "не удался", Unknown: "исход неизвестен" }
}

/// `/s` of a counter, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Per {
    Nothing,
    Second,
}

impl Word for Per {
    fn say(&self, language: Language) -> String {
        match (self, language) {
            (Self::Nothing, _) => "",
            (Self::Second, Language::English) => "/s",
            (Self::Second, Language::Russian) => "/с",
        }
        .to_owned()
    }
    #[cfg(test)]
    fn sample() -> Self {
        Self::Second
    }
}

macro_rules! counted {
    ($($(#[$meta:meta])* $name:ident [$eone:literal, $emany:literal], [$one:literal, $few:literal, $many:literal];)+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name(pub i64);
        impl Word for $name {
            fn say(&self, language: Language) -> String {
                let noun = match language {
                    Language::English => language.form(self.0, $eone, $emany, $emany),
                    Language::Russian => language.form(self.0, $one, $few, $many),
                };
                format!("{} {noun}", self.0)
            }
            #[cfg(test)]
            fn sample() -> Self {
                Self(2)
            }
        }
    )+};
}

counted! {
    /// `4 times`.
    Times ["times", "times"], ["раз", "раза", "раз"];
    /// `6 facts`.
    Facts ["fact", "facts"], ["факт", "факта", "фактов"];
    /// `16 values`.
    Values ["value", "values"], ["значение", "значения", "значений"];
    /// `2 more series`.
    SeriesCount ["more series", "more series"], ["ряд", "ряда", "рядов"];
}

/// `600 s`; in Russian `10 мин`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seconds(pub i64);

impl Word for Seconds {
    fn say(&self, language: Language) -> String {
        match language {
            Language::English => format!("{} s", self.0),
            Language::Russian => whole_russian(Duration::from_secs(self.0.max(0).unsigned_abs())),
        }
    }
    #[cfg(test)]
    fn sample() -> Self {
        Self(600)
    }
}

macro_rules! durations {
    ($($(#[$meta:meta])* $name:ident $english:path, $russian:path;)+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name(#[serde(with = "humantime_serde")] pub Duration);
        impl Word for $name {
            fn say(&self, language: Language) -> String {
                match language {
                    Language::English => $english(self.0),
                    Language::Russian => $russian(self.0),
                }
            }
            #[cfg(test)]
            fn sample() -> Self {
                Self(Duration::from_secs(3700))
            }
        }
    )+};
}

durations! {
    /// In full, as settings write it: `1m 30s`.
    Span whole, whole_russian;
    /// Rounded, without a space: `7m`.
    Short short, rounded_russian;
    /// Rounded: `7 min`.
    Lead rounded, rounded_russian;
}

fn whole(d: Duration) -> String {
    humantime::format_duration(d).to_string()
}

/// The units of [`whole`] in Russian; months and years are too long for what this program waits for.
fn whole_russian(d: Duration) -> String {
    let s = d.as_secs();
    let units = [
        (s / 86_400, "дн"),
        (s / 3600 % 24, "ч"),
        (s / 60 % 60, "мин"),
        (s % 60, "с"),
        (u64::from(d.subsec_millis()), "мс"),
    ];
    let said: Vec<String> =
        units.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n} {unit}")).collect();
    if said.is_empty() { "0 с".into() } else { said.join(" ") }
}

/// The unit that says enough, and how many of it: 45 s, 7 min, 3 h, 2 d.
fn unit(d: Duration) -> (u64, usize) {
    match d.as_secs() {
        s @ 0..=89 => (s, 0),
        s @ 90..=5399 => ((s + 30) / 60, 1),
        s @ 5400..=172_799 => ((s + 1800) / 3600, 2),
        s => ((s + 43_200) / 86_400, 3),
    }
}

fn short(d: Duration) -> String {
    let (n, unit) = unit(d);
    format!("{n}{}", ["s", "m", "h", "d"][unit])
}

fn rounded(d: Duration) -> String {
    let (n, unit) = unit(d);
    format!("{n} {}", ["s", "min", "h", "d"][unit])
}

fn rounded_russian(d: Duration) -> String {
    let (n, unit) = unit(d);
    format!("{n} {}", ["с", "мин", "ч", "дн"][unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn russian_says_no_english_word_and_leaves_nothing_out() {
        for (phrase, parts) in Phrase::samples() {
            let said = phrase.say(Language::Russian);
            let ours = said.replace("NAME", "");
            assert!(!ours.contains(|c: char| c.is_ascii_alphabetic()), "{phrase:?}: {said}");
            for part in parts {
                assert!(said.contains(&part), "{phrase:?} leaves out {part:?}: {said}");
            }
        }
    }

    #[test]
    fn english_says_everything_too() {
        for (phrase, _) in Phrase::samples() {
            let said = phrase.say(Language::English);
            assert!(!said.contains(|c: char| ('а'..='я').contains(&c)), "{phrase:?}: {said}");
        }
    }

    #[test]
    fn states_have_russian_words() {
        let runs = RunState::ALL.iter().map(|s| s.say(Language::Russian));
        let steps = StepState::ALL.iter().map(|s| s.say(Language::Russian));
        let incidents = IncidentState::ALL.iter().map(|s| s.say(Language::Russian));
        let severities = Severity::ALL.iter().map(|s| s.say(Language::Russian));
        for word in runs.chain(steps).chain(incidents).chain(severities) {
            assert!(!word.is_empty() && !word.contains(|c: char| c.is_ascii_alphabetic()), "{word}");
        }
    }

    #[test]
    fn what_is_stored_comes_back_the_same() {
        for (phrase, _) in Phrase::samples() {
            let said = Said::from(phrase);
            let json = serde_json::to_string(&said).expect("serialises");
            assert_eq!(serde_json::from_str::<Said>(&json).expect("comes back"), said, "{json}");
        }
        assert_eq!(serde_json::from_str::<Said>("\"words\"").expect("text"), Said::from("words"));
    }

    #[test]
    fn what_is_put_in_can_be_masked_at_any_depth() {
        let inner = Phrase::UnusualErrors { service: "shop".into(), what: "key=secret".into() };
        let said =
            Said::from(Phrase::MostLikely { claim: inner.into() }).map(&|t| t.replace("secret", "***"));
        assert_eq!(said, "Most likely: shop logs errors that it usually does not: key=***");
        assert!(said.in_language(Language::Russian).ends_with("key=***"));
    }

    #[test]
    fn durations_and_counts_are_said_as_people_say_them() {
        let minutes = Duration::from_secs(420);
        assert_eq!(Lead(minutes).say(Language::English), "7 min");
        assert_eq!(Lead(minutes).say(Language::Russian), "7 мин");
        assert_eq!(Short(minutes).say(Language::English), "7m");
        assert_eq!(Span(Duration::from_millis(90_500)).say(Language::Russian), "1 мин 30 с 500 мс");
        assert_eq!(Span(Duration::ZERO).say(Language::Russian), "0 с");
        let facts = |n| Facts(n).say(Language::Russian);
        assert_eq!([1, 2, 5, 11, 22].map(facts), ["1 факт", "2 факта", "5 фактов", "11 фактов", "22 факта"]);
        assert_eq!([1, 6].map(|n| Facts(n).say(Language::English)), ["1 fact", "6 facts"]);
    }
}
