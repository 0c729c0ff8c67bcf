//! What would happen if a server failed now, in words (G11).

use crate::text::number::about_ms;
use crate::text::{Lang, Names, say};
use crate::view::{Forecast, Outcome};

/// The question: which failure the row is about.
#[must_use]
pub fn forecast_when(lang: Lang, forecast: &Forecast, names: Names<'_>) -> String {
    let server = names.server(forecast.server);
    say!(lang, "If {server} failed now", "{server} ダウン時")
}

/// The answer.
#[must_use]
pub fn forecast(lang: Lang, forecast: &Forecast, names: Names<'_>) -> String {
    let groups = names.groups(&forecast.groups, lang);
    match forecast.outcome {
        Outcome::NothingStops => say!(lang, "Nothing would stop", "停止するものはありません"),
        Outcome::Moves { about_ms: ms } => {
            let about = about_ms(lang, ms);
            let sets = names.0.sets.iter().filter(|set| forecast.groups.contains(&set.group));
            if let Some(loss) = super::mode::would_lose(lang, &sets.collect::<Vec<_>>(), &about) {
                return loss;
            }
            say!(lang, "0 bytes lost, back in {about}", "失われるデータ 0 バイト、{about}で復帰")
        }
        Outcome::Stops | Outcome::StopsWithoutVote if groups.is_empty() => {
            say!(lang, "All would stop", "すべて停止します")
        }
        Outcome::Stops | Outcome::StopsWithoutVote => {
            say!(lang, "{groups} would stop", "{groups} が停止します")
        }
    }
}

/// The sentence under the answer.
#[must_use]
pub fn forecast_effect(lang: Lang, forecast: &Forecast, names: Names<'_>) -> String {
    let (groups, server) = (names.groups(&forecast.groups, lang), names.server(forecast.server));
    let twin = names.server(forecast.server.twin());
    match forecast.outcome {
        Outcome::NothingStops => {
            say!(lang, "No group runs on {server}", "{server} で活性のグループはありません")
        }
        Outcome::Moves { .. } if forecast.groups.len() == 1 => {
            say!(lang, "{groups} moves to {twin}", "{groups} が {twin} へフェイルオーバー")
        }
        Outcome::Moves { .. } => {
            say!(lang, "{groups} move to {twin}", "{groups} が {twin} へフェイルオーバー")
        }
        Outcome::Stops => {
            say!(
                lang,
                "Data stays on {server}, nothing could take over",
                "データは {server} に残り、引き継ぎ先はありません"
            )
        }
        Outcome::StopsWithoutVote => {
            say!(lang, "No third vote: {twin} may not take over", "第三の票がなく、{twin} は引き継げません")
        }
    }
}
