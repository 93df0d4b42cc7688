//! The commands that ask a member of a cluster: `leader`, `members`, `resign`, `join`, `leave`.

use super::cluster::parse_metadata;
use super::remote::{Remote, RemoteArgs, TlsArgs, unexpected};
use super::table::{duration, facts, preview, print, print_json, table};
use super::{Fault, operate};
use crate::api::{Reply, Request};
use crate::cluster::api::{ClusterReply, ClusterRequest, ClusterStatus, Leader};
use crate::cluster::config::join_host_port;

/// Longest wait for an event before asking again, in milliseconds.
const WAIT_MS: u32 = 30_000;

/// Who leads a cluster; any member can be asked. Exit code 6: nobody does.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore leader localhost:7001
  replcore leader localhost:7001 --json | jq -r .leader.host
  replcore leader localhost:7001 --watch            # a line for every change
  if replcore leader localhost:7001 >/dev/null; then echo somebody leads; fi")]
pub(super) struct LeaderArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Go on, and print every change.
    #[arg(long)]
    watch: bool,
    /// Print an object a line: `leader` is null when nobody leads.
    #[arg(long)]
    json: bool,
}

pub(super) async fn leader(args: LeaderArgs) -> Result<(), Fault> {
    let remote = Remote::open(&args.remote).await?;
    let mut last = None;
    loop {
        let after = if args.watch { Some(last_event(&remote).await?) } else { None };
        let status = status(&remote).await?;
        let now = (status.leader.as_ref().map(|it| it.identifier.clone()), status.term);
        if last.as_ref() != Some(&now) {
            print_leader(&status, args.json, args.watch)?;
        }
        last = Some(now);
        let Some(after) = after else {
            remote.close().await;
            return match status.leader {
                Some(_) => Ok(()),
                None => Err(Fault::nothing("nobody leads at present; try again")),
            };
        };
        next_event(&remote, after).await?;
    }
}

fn print_leader(status: &ClusterStatus, json: bool, line: bool) -> Result<(), Fault> {
    if json {
        let object = serde_json::json!({ "leader": status.leader, "term": status.term });
        return print_json(&object);
    }
    match (&status.leader, line) {
        (Some(leader), false) => print(&leader_facts(leader)),
        (Some(leader), true) => print(&format!(
            "{} leads in term {}, at {}\n",
            leader.identifier,
            leader.term,
            join_host_port(&leader.host, leader.port)
        )),
        (None, false) => Ok(()),
        (None, true) => print(&format!("nobody leads in term {}\n", status.term)),
    }
}

fn leader_facts(leader: &Leader) -> String {
    let metadata = serde_json::Value::from(leader.metadata.clone()).to_string();
    facts(&[
        ("leader", leader.identifier.clone()),
        ("address", join_host_port(&leader.host, leader.port)),
        ("term", leader.term.to_string()),
        ("since", duration(leader.leading_ms)),
        ("metadata", preview(metadata.as_bytes(), 400)),
    ])
}

/// The members of a cluster, as one of them sees it.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  replcore members localhost:7001
  replcore members localhost:7001 --json
  replcore members localhost:7001 --watch
  replcore members set-metadata localhost:7001 '{\"server_port\": 8001}'"
)]
pub(super) struct MembersArgs {
    #[command(subcommand)]
    command: Option<MembersCommand>,
    /// The member: HOST:PORT, or unix:/path/of/socket.
    #[arg(value_name = "HOST:PORT", required = true)]
    node: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Go on, and print what happens.
    #[arg(long)]
    watch: bool,
    /// Print an object a line.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum MembersCommand {
    /// Have a member say something else of itself, to all.
    #[command(
        after_help = "Examples:\n  replcore members set-metadata localhost:7001 '{\"server_port\": 8001}'"
    )]
    SetMetadata {
        #[command(flatten)]
        remote: RemoteArgs,
        /// All that it says: an object of at most 256 bytes.
        #[arg(value_name = "JSON")]
        metadata: String,
    },
}

pub(super) async fn members(args: MembersArgs) -> Result<(), Fault> {
    if let Some(MembersCommand::SetMetadata { remote, metadata }) = args.command {
        let metadata = parse_metadata(&metadata).map_err(Fault::usage)?;
        return order(&remote, ClusterRequest::SetMetadata { metadata }, "said to all").await;
    }
    let remote = Remote::open(&operate::required(args.node, args.tls)?).await?;
    let mut after = last_event(&remote).await?;
    let status = status(&remote).await?;
    match args.json {
        true => status.members.iter().try_for_each(print_json)?,
        false => print(&members_table(&status))?,
    }
    if !args.watch {
        remote.close().await;
        return Ok(());
    }
    loop {
        let (events, last) = next_event(&remote, after).await?;
        after = last;
        for event in events {
            match args.json {
                true => print_json(&event)?,
                false => print(&format!("{}\n", event.what))?,
            }
        }
    }
}

fn members_table(status: &ClusterStatus) -> String {
    let rows: Vec<_> = status
        .members
        .iter()
        .map(|member| {
            let trip = match member.round_trip_us {
                0 => "-".into(),
                us => format!("{:.1} ms", us as f64 / 1000.0),
            };
            let heard = match (member.state.as_str(), member.heard_ms_ago) {
                ("self" | "unknown", _) => "-".into(),
                (_, ms) => duration(ms),
            };
            let metadata = serde_json::Value::from(member.metadata.clone()).to_string();
            vec![
                preview(member.identifier.as_bytes(), 40),
                member.role.clone(),
                member.state.clone(),
                preview(join_host_port(&member.host, member.port).as_bytes(), 40),
                heard,
                trip,
                preview(metadata.as_bytes(), 60),
            ]
        })
        .collect();
    table(&["member", "role", "state", "address", ">heard", ">trip", "metadata"], &rows)
}

/// Have a member that leads hand over to another.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore resign localhost:7001        # before it is taken down, for instance")]
pub(super) struct ResignArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) async fn resign(args: ResignArgs) -> Result<(), Fault> {
    order(&args.remote, ClusterRequest::Resign, "it leads no more").await
}

/// Take a member into a cluster; any member can be asked.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore join localhost:7001 server_d=localhost:7004
  replcore join localhost:7001 archive=localhost:7005 --learner

The new member itself is started with --join, and then needs no `replcore join`:
  replcore cluster --name server_d --listen localhost:7004 --join localhost:7001")]
pub(super) struct JoinArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// The new member.
    #[arg(value_name = "NAME=HOST:PORT")]
    member: String,
    /// It does not vote and cannot lead.
    #[arg(long)]
    learner: bool,
}

pub(super) async fn join(args: JoinArgs) -> Result<(), Fault> {
    let Some((identifier, address)) = args.member.split_once('=') else {
        return Err(Fault::usage(format!("`{}`: write NAME=HOST:PORT", args.member)));
    };
    let request = ClusterRequest::Join {
        identifier: identifier.into(),
        address: address.into(),
        voter: !args.learner,
        passed_on: false,
    };
    order(&args.remote, request, &format!("{identifier} is a member")).await
}

/// Take a member out of a cluster, also one that is gone for good; any member can be asked.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  replcore leave localhost:7001 server_c

A majority of the members, the one that leaves included, has to be there.")]
pub(super) struct LeaveArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Who leaves.
    #[arg(value_name = "NAME")]
    member: String,
}

pub(super) async fn leave(args: LeaveArgs) -> Result<(), Fault> {
    let said = format!("{} is no member any more", args.member);
    let request = ClusterRequest::Leave { identifier: args.member, passed_on: false };
    order(&args.remote, request, &said).await
}

async fn ask(remote: &Remote, request: ClusterRequest) -> Result<ClusterReply, Fault> {
    match remote.ask(&Request::Cluster(request)).await? {
        Reply::Cluster(reply) => Ok(reply),
        other => Err(unexpected(&other)),
    }
}

async fn order(args: &RemoteArgs, request: ClusterRequest, done: &str) -> Result<(), Fault> {
    let remote = Remote::open(args).await?;
    let reply = ask(&remote, request).await?;
    remote.close().await;
    match reply {
        ClusterReply::Done => print(&format!("{done}\n")),
        other => Err(unexpected(&Reply::Cluster(other))),
    }
}

async fn status(remote: &Remote) -> Result<ClusterStatus, Fault> {
    match ask(remote, ClusterRequest::Status).await? {
        ClusterReply::Status(status) => Ok(*status),
        other => Err(unexpected(&Reply::Cluster(other))),
    }
}

async fn last_event(remote: &Remote) -> Result<u64, Fault> {
    let request = ClusterRequest::Events { after: None, wait_ms: 0 };
    match ask(remote, request).await? {
        ClusterReply::Events { last, .. } => Ok(last),
        other => Err(unexpected(&Reply::Cluster(other))),
    }
}

/// Waits for events; answers them, and the id to go on from. None when there were none for long.
async fn next_event(
    remote: &Remote,
    after: u64,
) -> Result<(Vec<crate::cluster::ClusterEvent>, u64), Fault> {
    let request = ClusterRequest::Events { after: Some(after), wait_ms: WAIT_MS };
    match ask(remote, request).await? {
        ClusterReply::Events { events, last, .. } => Ok((events, last)),
        other => Err(unexpected(&Reply::Cluster(other))),
    }
}
