//! The API: what people, the command line and the console read and do.

use utoipa_actix_web::service_config::ServiceConfig;

mod alerts;
mod approvals;
mod audit;
mod automation;
mod events;
mod explain;
mod incidents;
mod runs;
mod status;
mod tokens;

pub fn routes(config: &mut ServiceConfig) {
    config
        .service(alerts::list)
        .service(incidents::list)
        .service(incidents::show)
        .service(approvals::list)
        .service(runs::list)
        .service(audit::list)
        .service(explain::explain)
        .service(status::status)
        .service(automation::stop)
        .service(automation::start)
        .service(tokens::list)
        .service(tokens::create)
        .service(tokens::revoke)
        .service(events::stream);
}
