//! `aiops backtest`: what it answers on recorded data, and that scores on self-made data do not rot.

mod figure;
mod metrics;
mod rca;
mod record;
mod replay;
mod series;
mod shop;
mod templates;
mod weeks;
