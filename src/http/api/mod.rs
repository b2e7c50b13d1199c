//! The API: what people, the command line and the console read and do.

use utoipa_actix_web::service_config::ServiceConfig;

mod alerts;
mod approvals;
mod audit;
mod automation;
mod events;
mod explain;
mod export;
mod incidents;
mod logs;
mod playbooks;
mod runs;
mod silences;
mod status;
mod tokens;

pub fn routes(config: &mut ServiceConfig) {
    config
        .service(alerts::list)
        .service(incidents::list)
        .service(incidents::show)
        .service(incidents::ack)
        .service(incidents::resolve)
        .service(logs::search)
        .service(approvals::list)
        .service(approvals::approve)
        .service(approvals::reject)
        .service(runs::list)
        .service(runs::show)
        .service(runs::settle)
        .service(runs::cancel)
        .service(silences::list)
        .service(silences::create)
        .service(silences::expire)
        .service(playbooks::list)
        .service(playbooks::dry_run)
        .service(playbooks::run)
        .service(audit::list)
        .service(explain::explain)
        .service(export::retry)
        .service(status::status)
        .service(automation::stop)
        .service(automation::start)
        .service(tokens::list)
        .service(tokens::create)
        .service(tokens::revoke)
        .service(events::stream);
}
