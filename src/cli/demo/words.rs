//! What the demo itself says, in both languages.

use crate::config::Language;

/// One text in English and in Russian.
pub struct Text(pub &'static str, pub &'static str);

impl Text {
    pub fn in_language(&self, language: Language) -> &'static str {
        match language {
            Language::English => self.0,
            Language::Russian => self.1,
        }
    }
}

pub const INTRO: Text = Text(
    "A small shop with 8 database connections, and aiops watching it. Ctrl-C ends it all.",
    "Небольшой магазин с 8 соединениями к базе, и aiops следит за ним. Ctrl-C завершает всё.",
);
pub const OPEN: Text = Text(
    "the shop is open, 6 orders a second; learning what is normal",
    "магазин открыт, 6 заказов в секунду; учимся, что здесь нормально",
);
pub const COUPONS: Text = Text(
    "customers try an outdated coupon; by a bug each of them costs the shop a connection",
    "покупатели пробуют старый купон; из-за ошибки каждый стоит магазину соединения",
);
pub const BROKE: Text = Text("the shop answers no customer any more", "магазин больше никому не отвечает");
pub const HEALED: Text = Text("the shop answers again", "магазин снова отвечает");
pub const AGAIN: Text = Text("as before, now with more evidence", "как прежде, теперь с новыми данными");
pub const PAGE: Text = Text("the phone rings", "звонит телефон");
pub const EDIT: Text = Text("the phone shows", "на телефоне");
pub const APPROVE: Text = Text("Let it run? [y/N] ", "Выполнить? [y/N] ");
pub const YES: Text = Text("approved unattended (--yes)", "одобрено без вопроса (--yes)");
pub const TO_PAGE: Text = Text("to the page", "до оповещения");
pub const TO_DIAGNOSIS: Text = Text("to the diagnosis", "до диагноза");
pub const TO_FIX: Text = Text("to the verified fix", "до проверенного исправления");
pub const WAITED: Text = Text("of it waiting for you", "из них ждали вас");
pub const IT_HEALED: Text = Text("Healed: the shop itself says so.", "Исправлено: это говорит сам магазин.");
pub const NOT_HEALED: Text = Text(
    "Not healed: the shop still answers no customer.",
    "Не исправлено: магазин по-прежнему никому не отвечает.",
);
