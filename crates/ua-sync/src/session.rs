//! The way to the VPS for one run.

use ua_common::host::{Host, RemoteHost};
use ua_common::output::Printer;
use ua_common::place;
use ua_common::report::Report;
use ua_common::settings::{Layer, Settings, SettingsError, Sourced, Surroundings};
use ua_common::transport::Transport;

use crate::config::Config;

/// Sees that the VPS is there, and connects. Nothing if a check says why not.
pub fn open(config: &Config, out: &Printer, report: &mut Report) -> anyhow::Result<Option<Transport>> {
    let settings = &config.settings;
    let preflight = ua_preflight::check(settings, out, ua_preflight::Options::default());
    report.stage("preflight", preflight.checks);
    let Some(place) = preflight.place else { return Ok(None) };
    config.apart(&place)?;
    let transport = Transport::open(place.ssh_target(settings), settings.ssh_check_wait.value, out)?;
    report.checks.extend(transport.opening().checks());
    Ok(Some(transport))
}

/// In an old spelling an address may stand for the peer that `host.vps` names: gives the target by its name then.
pub fn by_address(
    target: &Sourced<RemoteHost>,
    around: &Surroundings,
    out: &Printer,
) -> Result<Option<Sourced<RemoteHost>>, SettingsError> {
    let Host::Ip(ip) = target.host else { return Ok(None) };
    // What is meant by `host.vps` when nobody types an address.
    let named: Settings = Settings::load(Layer::new(), around)?;
    let Some(found) = place::look(&named, out, &mut Vec::new()) else { return Ok(None) };
    if !found.place.addresses.contains(&ip) {
        return Ok(None);
    }
    out.warn(&format!(
        "`{ip}` (from {}) is taken for `{}`; a target is named by its MagicDNS name",
        target.origin, found.place.name
    ));
    let Ok(host) = found.place.name.parse() else { return Ok(None) };
    let value = RemoteHost { user: target.user.clone(), host };
    Ok(Some(Sourced { value, origin: target.origin.clone() }))
}
