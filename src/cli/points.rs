//! `apt-ostree point` and `apt-ostree diff`, and what a rollback goes back to.

use apt_ostree_proto::dbus::Options;
use apt_ostree_proto::difference::Difference;
use apt_ostree_proto::point::{Point, Reference};
use apt_ostree_proto::status::HostState;
use apt_ostree_proto::{ErrorCode, Failure};
use zbus::zvariant::Value;

use super::arguments::{self, Global};
use super::connect::{explain, manager, read};
use super::{exit, render};

/// Names, lists, or forgets.
pub(super) async fn point(global: &Global, asked: &arguments::Point) -> anyhow::Result<u8> {
    let (_, manager) = manager().await?;
    if let Some(name) = &asked.remove {
        manager.remove_point(name).await.map_err(explain)?;
        return Ok(exit::DONE);
    }
    let Some(name) = &asked.name else {
        let state: HostState = read(&manager.get_status().await.map_err(explain)?)?;
        return render::data(global, state.points.as_slice(), render::points);
    };
    let id = match asked.id {
        Some(0) => return Err(no_transaction_zero().into()),
        id => id.unwrap_or(0),
    };
    let text = manager.name_point(name, id).await.map_err(explain)?;
    let point: Point = read(&text)?;
    if global.quiet && !global.json {
        return Ok(exit::DONE);
    }
    render::data(global, &point, render::point)
}

/// Shows what differs.
pub(super) async fn diff(global: &Global, asked: &arguments::Diff) -> anyhow::Result<u8> {
    let (_, manager) = manager().await?;
    let text = manager.diff(&asked.old, &asked.new).await.map_err(explain)?;
    let difference: Difference = read(&text)?;
    render::data(global, &difference, render::difference)
}

/// The arguments of the call that begins a rollback to `to`.
pub(super) fn rollback_to(to: Option<&str>) -> anyhow::Result<(u64, Options<'static>)> {
    let Some(to) = to else { return Ok((0, Options::new())) };
    let invalid = |why: String| {
        Failure::new(ErrorCode::InvalidArgument, why)
            .with_hint("Give a transaction's number, or a point's name: apt-ostree point.")
    };
    match to.parse::<Reference>().map_err(|error| invalid(error.to_string()))? {
        Reference::Update(id) if id.0 == 0 => Err(no_transaction_zero().into()),
        Reference::Update(id) => Ok((id.0, Options::new())),
        Reference::Point(name) => {
            Ok((0, Options::from([("point", Value::from(name.to_string()))])))
        }
        other => Err(invalid(format!("a rollback cannot go back to \"{other}\"")).into()),
    }
}

fn no_transaction_zero() -> Failure {
    Failure::new(ErrorCode::NotFound, "there is no transaction 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_goes_before_an_update_or_to_a_point() {
        assert_eq!(rollback_to(None).unwrap(), (0, Options::new()));
        assert_eq!(rollback_to(Some("7")).unwrap(), (7, Options::new()));
        let (id, options) = rollback_to(Some("before-x")).unwrap();
        assert_eq!((id, &options["point"]), (0, &Value::from("before-x")));
        for bad in ["0", "running", "next", "a b", "", "0123456789abcdef"] {
            assert!(rollback_to(Some(bad)).is_err(), "{bad}");
        }
    }
}
