//! `aiops backtest`: what it answers on recorded data, and that scores on self-made data do not rot.

mod rca;
mod shop;
mod templates;
