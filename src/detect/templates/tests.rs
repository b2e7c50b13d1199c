//! The miner on lines made up for it.

use std::collections::{BTreeMap, BTreeSet};

use super::{hash::unmix, *};
use proptest::prelude::*;

const NAMES: [&str; 10] = ["ann", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy"];

/// Lines of a shop with the template that each should get.
fn corpus() -> Vec<(&'static str, String)> {
    let hosts = ["db-a.shop.internal", "db-b.shop.internal", "cache.shop.internal", "mq.shop.internal"];
    let buyers = ["анна", "борис", "вера", "глеб", "дарья", "егор", "жанна", "иван", "кира", "лев"];
    let mut lines = Vec::new();
    for i in 0..200_usize {
        lines.push((
            "order <*> accepted for <*> in <*>",
            format!("order {} accepted for u{i} in {}ms", i * 7, i % 90),
        ));
        lines.push((
            "user <*> logged in from <*>",
            format!("user {} logged in from 10.0.{i}.1", NAMES[i % 10]),
        ));
        lines.push((
            "lost the connection to <*> after <*>",
            format!("lost the connection to {} after {i} s", hosts[i % 4]),
        ));
        lines.push(("cache is warm", "cache is warm".into()));
        lines.push(("cache is cold", "cache is cold".into()));
        lines.push((
            "покупатель <*> оплатил заказ <*>",
            format!("покупатель {} оплатил заказ {i}", buyers[i % 10]),
        ));
    }
    lines
}

fn ids<L: AsRef<[u8]>>(miner: &mut Miner, lines: impl IntoIterator<Item = L>) -> Vec<TemplateId> {
    let ids: Vec<_> = lines.into_iter().map(|line| miner.add(line.as_ref()).line).collect();
    miner.settle();
    ids.into_iter().map(|id| miner.resolve(id)).collect()
}

fn templates(lines: &[&str]) -> usize {
    ids(&mut Miner::new(10_000), lines).into_iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn lines_of_one_statement_end_in_one_template() {
    let mut miner = Miner::new(10_000);
    let ids = ids(&mut miner, corpus().iter().map(|c| c.1.clone()));
    let mut by: BTreeMap<&str, BTreeSet<TemplateId>> = BTreeMap::new();
    for ((template, line), id) in corpus().into_iter().zip(ids) {
        assert_eq!(miner.text(id), template, "{line}");
        by.entry(template).or_default().insert(id);
    }
    assert!(by.values().all(|ids| ids.len() == 1), "{by:?}");
}

#[test]
fn the_oldest_id_lives_on_and_is_the_same_after_a_restart() {
    let mut miner = Miner::new(10_000);
    let first = miner.add(b"user ann has logged in").template;
    assert_eq!(Miner::new(10_000).add(b"user ann has logged in").template, first);
    for name in &NAMES[1..] {
        miner.add(format!("user {name} has logged in").as_bytes());
    }
    let found = miner.add(b"user zed has logged in");
    assert_eq!((found.template, found.new), (first, false));
    assert_eq!(miner.text(first), "user <*> has logged in");
    assert!(miner.take_changes().iter().any(|c| matches!(c, Change::Merged { into, .. } if *into == first)));
}

#[test]
fn a_few_words_told_often_are_told_apart_until_they_become_many() {
    let mut miner = Miner::new(10_000);
    let line = |word: &str| format!("the second disk is {word} since the last boot");
    let states = ["ready", "stopped", "failing", "missing"];
    for _ in 0..40 {
        for state in states {
            miner.add(line(state).as_bytes());
        }
    }
    miner.settle();
    let apart: BTreeSet<_> = states.iter().map(|s| miner.add(line(s).as_bytes()).template).collect();
    assert_eq!(apart.len(), 4, "all the words there are");
    for name in NAMES {
        miner.add(line(name).as_bytes());
    }
    let merged: BTreeSet<_> = states.iter().map(|s| miner.add(line(s).as_bytes()).template).collect();
    assert_eq!(merged.len(), 1, "ten more words: it is a value");
}

#[test]
fn short_lines_do_not_melt_into_each_other() {
    assert_eq!(
        templates(&[
            "connection refused",
            "connection established",
            "connection reset",
            "connection closed",
            "connection lost"
        ]),
        5
    );
}

#[test]
fn who_speaks_is_no_part_of_what_is_said() {
    for same in [
        ["[Consumer clientId=c1, groupId=g0] Node 1 left", "[Producer clientId=p1] Node 7 left"],
        [
            "2026-11-21 10:00:00,123 INFO [main] shop.Cart - Saved",
            "2026-11-21 10:00:01,007 INFO [order-poller] shop.Cart - Saved",
        ],
        [
            "10:00:00.123 [main] INFO shop.Cart - Saved",
            "10:00:01.007 [pool-1-thread-2] INFO shop.Cart - Saved",
        ],
        ["INFO:root:[Cart id=1] saved", "INFO:root:[Wish id=2] saved"],
        ["env: db.version=5.0", "env: db.version=4.1-a, built on 2026-11-21 by ann"],
        ["INFO shop.api [None ann shop - -] order taken", "INFO shop.api [-] order taken"],
        ["Done [id=1, state=NEW, on=Host [name=a]]", "Done [id=2, state=OLD, on=Host [name=b], next=null]"],
    ] {
        assert_eq!(templates(&same), 1, "{same:?}");
    }
    for apart in [
        ["10:00:00 [ERROR] the disk is full", "10:00:00 [INFO] the disk is full"],
        ["[event=login user=ann]", "[event=logout user=ann]"],
        ["10:00:00 ERROR [main] no disk", "10:00:00 WARN [main] no disk"],
        ["env: os.name=Linux", "net: os.name=Linux"],
        ["INFO:root:saved a.b.C", "INFO:root:lost a.b.C"],
    ] {
        assert_eq!(templates(&apart), 2, "{apart:?}");
    }
    let mut miner = Miner::new(100);
    let id = miner.add(b"10:00:00 INFO [main] a.b.Cart - 7 are gone").template;
    assert_eq!(miner.text(id), "<*> INFO [<*>] <*> - <*> are gone", "the logger is no part of a value");
}

#[test]
fn lines_with_a_head_do_not_melt_into_each_other() {
    let lines = [
        "DEBUG Stopping mail listener on 0",
        "INFO Stopping mail responder",
        "WARN Stopping scrubber.",
        "WARN Stopping monitor.",
        "INFO Fault in offerService",
        "INFO Stopping services begun for active state",
        "DEBUG Stopping services begun for standby state",
        "DEBUG Stopped a.b.Context@3dd4a6fa{shop,/,null}",
        "INFO Stopped Connector@46731692{HTTP}{localhost:0}",
        "DEBUG Started a.b.Context@333398f1{shop,/,null}",
        "INFO Started Connector@27da994b{HTTP}{localhost:46007}",
        "INFO shop.disk.profiling.sampling set to 0. Disabling profiling",
        "WARN shop.disk.registration.check=true",
        "INFO shop.disk.safe.part = 0.999",
        "INFO Top conf: shop.top.window.buckets = 10",
        "WARN Top conf: shop.top.windows.minutes = 1,5,25",
        "INFO Retry cache is enabled",
    ];
    for head in ["", "2026-11-21 10:00:00,123 ", "worker-1  | 2026-11-21T10:00:00Z "] {
        let lines: Vec<_> = lines.iter().map(|line| format!("{head}{line}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(templates(&lines), lines.len(), "{head}");
    }
    assert_eq!(
        templates(&[
            "10:00:00 INFO [shop.Cart] (main) Saved",
            "10:00:01 INFO [shop.Cart] (Pool of 3 threads) Saved"
        ]),
        1
    );
}

#[test]
fn a_message_is_the_same_however_it_is_wrapped() {
    let message = r#"[Cart id=7] no "big" cart: gone"#;
    let trace = "\\n\\tat shop.Cart.add(Cart.java:7)\\nCaused by: java.io.IOException: reset";
    let once = message.replace('"', r#"\""#);
    let twice = format!(r#"{{"level":"warn","msg":"{once}"}}"#).replace('\\', r"\\").replace('"', r#"\""#);
    let lines = [
        message.to_owned(),
        format!(r#"{{"level":"warn","message":"{once}"}}"#),
        format!(r#"level=warn ts=2026-11-21T10:00:00Z msg="{once}""#),
        format!(r#"{{"stream":"stdout","log":"{twice}\n"}}"#),
    ];
    let mut miner = Miner::new(100);
    let ids: BTreeSet<_> = lines.iter().map(|line| miner.add(line.as_bytes()).template).collect();
    assert_eq!(ids.iter().map(|id| miner.text(*id)).collect::<Vec<_>>(), ["[<*>] no <*> cart: gone"]);
    let line = &lines[3];
    miner.add(line.as_bytes());
    assert_eq!(miner.values(line.as_bytes()).collect::<Vec<_>>(), [&b"Cart id=7"[..], b"\"big\""]);

    let plain = miner.add(format!("{message}{}", trace.replace("\\n", "\n").replace("\\t", "\t")).as_bytes());
    let inside = miner.add(format!(r#"{{"level":"warn","msg":"{once}{trace}"}}"#).as_bytes());
    assert_eq!(plain.template, inside.template, "the first line and the cause");
}

#[test]
fn what_comes_and_goes_in_a_value_does_not_make_a_template() {
    for same in [
        &[
            "sent 10 bytes in 5 ms",
            "sent 1200 bytes (1.17 KB) in 5 ms",
            "sent 7 kB in <1 sec",
            "sent 7 kB in 00:12",
        ][..],
        &["ids: 1, 2, 3 done", "ids: 1 done", "ids: 4, 5 done"],
        &["nodes up: n1 0x1f <ok> n2 0x2f <ok> of all", "nodes up: n1 0x1f <ok> of all"],
        &["job=7 user= from=10.0.0.1", "job=8 user=x9 from="],
        &["opened C:\\Program Files\\Some Tool\\a.ini for 1", "opened C:\\Windows\\a.ini for 2"],
        &["seen at Fri Jul 03 10:00:00 2026 by all", "seen at 2026-07-03T10:00:00Z by all"],
        &["view Rect{a=1, b=2} drawn", "view Rect{} drawn"],
        &["\x1b[31mdisk 1 failed\x1b[0m", "disk 22 failed"],
        &["calls to () took 1", "calls to (a7) took 1"],
        &["sends 3.5 MB/s now", "sends 900 bytes/s now", "sends 7 requests/min now"],
        &["caller ::1 has gone", "caller fe80::1:2 has gone", "caller 10.0.0.1 has gone"],
        &["split file:/a/b.log+7", "split hdfs://n1/a/b.log+7"],
        &["handles [TERM, HUP] now", "handles [INT, TERM, HUP] now", "handles [] now"],
        &["may read: Set(ann, bob); done", "may read: Set(ann, carol, bob); done"],
        &["client: a1, server: , uri: /a/1", "client: a2, server: shop1, uri: /a/2"],
        &["ended with error (null)", "ended with error 7"],
        &["parsed <a b=\"1\"><c/></a> as 1", "parsed <d e=\"2\"/> as 2", "parsed <f>g</f> as 3"],
        &["by a1 : TTY=tty1 ; COMMAND=/bin/ls", "by a2 : TTY=pts/3 ; COMMAND=/bin/tar -x -f a.tar"],
        &["(a1) CMD (cd / && run-parts /etc/x)", "(a2) CMD (/bin/true)"],
        &["drawn rect=Rect(1, 2 - 3, 4)", "drawn rect=Rect()"],
        &["relay=mx.shop[10.0.0.7]:25, delay=1", "relay=none, delay=2"],
        &["Nov 21 10:00:00 web sshd[7]: bye", "Nov 21 10:00:01 db.shop sshd[8]: bye"],
        &[
            "failed (2: gone), client: a1, host: \"b1\"",
            "failed (3: gone), client: a2, host: \"b2\", referrer: \"c\"",
        ],
        &["job 7 went NEW -> OPEN by a1", "job 8 went OPEN -> CLOSED by a2"],
        &["red -> blue", "red -> blue, blue -> green"],
        &["got tool:all 1.2 now", "got tool:amd64 1.3 now"],
        &["ran (task 7, elm, ANY, 12 bytes) now", "ran (task 7, elm7, 12 bytes) now"],
        &["cut by age: Seg(at=1, size=2),Seg(at=3, size=4) (x7)", "cut by age: Seg(at=1, size=2) (x7)"],
        &["step 7 on k7 done by driver", "step 7 on elm done by 7", "step 8 on k8 done by 9"],
        &[
            "[Reader id=1, of=a2] lost node 3",
            "[Writer id=1] lost node 4",
            "[Writer id=2, term=3] lost node 4",
        ],
        &["RAFT [s1 - _all_] steps down now", "RAFT [s1 - p2] steps down now"],
        &["[u7] asked for 3 pages", "asked for 4 pages"],
        &[
            "the red pool of box-red is up now",
            "the blue pool of box-blue is up now",
            "the green pool of box-green is up now",
            "the black pool of box-black is up now",
        ],
        &["opened by de_DE with 3 rows in all", "opened by audit.log with 4 rows in all"],
        &["page a1 was not found", "page a2 was not found, referer: /b/3"],
        &["job j1 ended, state=done, by=u1", "job j2 ended, state=broken, by=u1"],
        &["it has been seen as ready, so it is used", "it has been seen as broken, so it is used"],
        &["step 7 [warn] is skipped now", "step 8 [error] is skipped now"],
        &[
            "stock-keeper worker has been started",
            "mail-sender worker has been started",
            "priceFinder worker has been started",
        ],
        &["nodes node-[1-4] up", "nodes node-7 up", "nodes node-[1-4,9-12] up"],
        &[
            "read of /a/1 failed (2: No such file or directory)",
            "read of /b/1 failed (13: Permission denied)",
        ],
        &["(2)No such file or directory: no page at /a/1", "(13)Permission denied: no page at /b/1"],
        &[
            "left (error:0A00010B:SSL routines::wrong version number) at 7",
            "left (error:0A0000C1:SSL routines:tls_accept:no shared cipher) at 8",
        ],
        &["\"^\" matches \"/a/1\", asked: \"x\"", "\"/old\" matches \"/b/2\", asked: \"y\""],
        &[
            "asked, request: \"GET /a/1 HTTP/1.1\"",
            "asked, request: \"junk\"",
            "asked, request: \"POST / HTTP/1.0\"",
        ],
        &["allowed by <Any>", "allowed by <Local>", "allowed by <>"],
        &["[ann] OK LOGIN", "[bob] OK LOGIN"],
        &["waits in List()", "waits in List(Stage 4)", "waits in HashSet(a, b)"],
        &["cut LogPart(at=1, size=2)", "cut LogPart(at=3, size=4),LogPart(at=5, size=6)"],
        &["environment:java.vendor=Debian", "environment:java.tmp=/a/b:/c", "environment:java.args="],
        &["RING [a - _meta_] stepped down", "RING [b - C-7-x] stepped down"],
        &["seen by u'ann' at 1", "seen by u'x7' at 2"],
        &["pool for (*:80) made", "pool for (10.0.0.7:80) made"],
        &["freeing tree(.)", "freeing tree(a.example)"],
        &["holds it; queue: .", "holds it; queue: 7, 8.", "holds it; queue: 9."],
        &["op=7 sent text=", "op=8 sent text=no such object", "op=9 sent text=7"],
        &["took 7 ms  statement: begin; select f(1)", "took 8 ms  statement: drop table t7"],
        &["by a1 ; DIR=/ ; AS=x7", "by a2 ; DIR=/run/a ; AS=x8"],
        &["answers for al.example. A", "answers for www.al.example. A"],
        &["looks for app.js today", "looks for index.html today"],
        &["closed 7 links, reason: timed out (no answer), code: 1", "closed 8 links, reason: gone, code: 2"],
        &["waits for TcpNode [id=1, order=2] now", "waits for LocalPeer [key=a, at=[b, c]] now"],
        &["to=1, status=late (no answer from a.example)", "to=2, status=late (queue of 7 is full)"],
        &[
            "told <Event moved[L]: old=<state a.b=off; by=(1, 2)>, new=None> to all",
            "told <Event added[L]: key=x, late=> to all",
            "told <function save_all at 0x7f3a> to all",
            "told <shop.Failure shop.errors.Gone: it was closed cleanly.> to all",
            "told <bound method Cart.close of <Cart object at 0x7f3b>> to all",
            "told <Buffer a9 da> to all",
        ],
        &["looked at job=12_* of all", "looked at job=13 of all"],
        &["wants shop@*, found 7", "wants shop@1.2, found 8"],
        &["asked for: 7 wants: *", "asked for: 8 wants: 1.2"],
        &[
            "takes shop==1.2.3 today",
            "takes Cart>=2.7,!=3.0.*,<4 today",
            "takes cart~=1.4 today",
            "takes cart@^3.0.0 || ^4.0.0 today",
            "takes cart@>= 2.1.2 < 3 today",
            "takes cart7 today",
        ],
        &["is red (needs:>=2.7, !=3.0.*, <4) at 7", "is red (needs:>=3.8) at 8"],
        &[
            "a_b.service: merged a_b.service/start into installed job a_b.service/start as 7",
            "c.path: merged c.path/stop into installed job c.path/stop as 8",
            "rules.d: merged rules.d/start into installed job rules.d/start as 9",
        ],
        &["link 7 goes NEW => OPEN by a1", "link 8 goes OPEN => CLOSED by a2"],
        &["bus 7 goes UNSET → OPEN", "bus 8 goes OPEN → SHUT"],
        &["rule 7 maps [ann] -> [bob] -> [eve]", "rule 8 maps [carol] -> [dave] -> [ann]"],
        &["[shop.example.] zone 7 is up", "[lists.example.] zone 8 is up"],
        &[
            "sends step 7 [ SA KE N(FRAG) ]",
            "sends step 8 [ IDi AUTH ]",
            "sends step 9 [ D ]",
            "sends step 9 [ ]",
        ],
        &["peer 7 is CN=a.example, O=Mill Works, C=DE", "peer 8 is O = Shop, CN = gate", "peer 9 is CN=gate"],
        &["opened 7 with read=yes write=No", "opened 8 with read=no write=Yes"],
        &["asked 7 of [::1]:80 today", "asked 8 of [fe80::1] today", "asked 9 of a.example:80 today"],
        &[
            "link 7 has flags=UP,RUNNING now",
            "link 8 has flags=DOWN now",
            "link 9 has flags=UP,LOWER,MULTI now",
        ],
        &["listens 7 times on *", "listens 8 times on 10.0.0.1"],
        &["job id=7_* is tried", "job id=8 is tried"],
        &["it has no name: (unnamed)[7]", "it has no name: a1[8]"],
    ] {
        assert_eq!(templates(same), 1, "{same:?}");
    }
}

#[test]
fn parts_that_come_and_go_amid_a_sentence_do_not_make_a_template() {
    for same in [
        &["offers 10.0.0.9 to a1 via b1", "offers 10.0.0.8 to a2 (desk7) via b2"][..],
        &[
            "mail H=(a.example) [10.0.0.7]:25 F=<a@b> was not taken",
            "mail H=[10.0.0.8]:26 was not taken",
            "mail U=root P=local was not taken",
        ],
        &[
            "check of a1 has failed, reason: 7, code: 8, check duration: 9ms, now DOWN",
            "check of a2 has failed, check duration: 9ms, now DOWN",
        ],
        &["10.0.0.7:80 lost the way", "lost the way", "[7] a1: lost the way"],
        &[
            "zone a1 could not be loaded (not there)",
            "zone a2 could not be loaded (out of memory)",
            "zone a3 could not be loaded (gone)",
        ],
        &[
            "it could not be sent home (error: link is gone) in 7 ms",
            "10.0.0.7 it could not be sent home (no way) in 8 ms",
        ],
    ] {
        assert_eq!(templates(same), 1, "{same:?}");
        let back: Vec<&str> = same.iter().rev().copied().collect();
        assert_eq!(templates(&back), 1, "{back:?}");
    }
    for apart in [
        ["the way is lost; uid=1 tty=2", "the way is lost; uid=1 tty=2 user=7"],
        ["7 ERROR no way home", "no way home"],
        ["it is gone (at last)", "it is gone (for now)"],
        ["event=login user=7 is told at once", "event=logout user=7 is told at once"],
    ] {
        assert_eq!(templates(&apart), 2, "{apart:?}");
    }
    let mut miner = Miner::new(100);
    let lines = ["zone a1 could not be loaded (not there)", "zone a2 could not be loaded (out of memory)"];
    let ids = ids(&mut miner, lines);
    assert_eq!(miner.text(ids[0]), "zone <*> could not be loaded (<*>)");
    let line = b"zone a3 could not be loaded (it is all too late)";
    let found = miner.add(line);
    assert_eq!((found.template, found.new), (ids[0], false));
    assert_eq!(miner.values(line).collect::<Vec<_>>(), [&b"a3"[..], b"it is all too late"]);
}

#[test]
fn what_ends_alike_is_no_name() {
    let names = ["XAuth", "DPD", "MOBIKE", "FRAG", "NAT", "REDIR"];
    let both = |what: String| ["received", "sending"].map(|verb| format!("{verb} {what}"));
    let lines: Vec<String> = names.iter().flat_map(|name| both(format!("{name} vendor id"))).collect();
    let others = ["a key of the peer", "packet: from 7 to 8"].map(String::from);
    let mut miner = Miner::new(100);
    let ids = ids(&mut miner, lines.into_iter().chain(others.into_iter().flat_map(both)));
    let kept: BTreeSet<_> = ids.iter().map(|id| miner.text(*id)).collect();
    assert!(kept.contains("received packet: from <*> to <*>"), "{kept:?}");
    assert!(!kept.contains("received <*>"), "{kept:?}");
}

#[test]
fn four_constants_beside_three_words_are_values() {
    let line = |what: &str| format!("the last answer of here was {what} at 7");
    let names = ["NT_NO_USER", "NT_NO_DOMAIN", "NT_STATUS_OK", "SQL_NO_ROW"];
    let lines: Vec<String> = names.iter().map(|name| line(name)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!((templates(&lines[..3]), templates(&lines)), (3, 1));
}

/// Titles of three to five words that come back after other words.
fn titles() -> Vec<String> {
    let what =
        ["Nightly", "Weekly", "Shared", "Local", "Remote", "Guest", "Primary", "Spare", "Quick", "Daily"];
    let of = ["search index", "ledger", "picture of the week", "mail queue runner"];
    let titles = what.iter().enumerate().map(|(i, what)| format!("{what} {}", of[i % of.len()]));
    titles.collect()
}

#[test]
fn a_value_of_several_words_is_one_value() {
    let mut miner = Miner::new(1000);
    let lines: Vec<String> = titles()
        .iter()
        .flat_map(|title| {
            [format!("Starting {title}..."), format!("Started {title}."), format!("Stopped {title}.")]
        })
        .collect();
    let ids = ids(&mut miner, &lines);
    let kept: BTreeSet<_> = ids.iter().map(|id| miner.text(*id)).collect();
    assert_eq!(kept, ["Started <*>.", "Starting <*>.", "Stopped <*>."].map(String::from).into());
    let line = b"Started Cache of far away pages.";
    let found = miner.add(line);
    assert_eq!((miner.text(found.template).as_str(), found.new), ("Started <*>.", false));
    assert_eq!(miner.values(line).collect::<Vec<_>>(), [&b"Cache of far away pages"[..]]);
    // The same after a restart.
    let mut again: Miner = rmp_serde::from_slice(&saved(&miner)).expect("what was saved");
    let line = "Starting One more title...";
    assert_eq!(again.text(again.resolve(ids[0])), "Starting <*>.");
    let found = again.add(line.as_bytes());
    assert_eq!((again.text(found.template).as_str(), found.new), ("Starting <*>.", false));
}

#[test]
fn statements_that_begin_alike_are_no_values() {
    let lines: Vec<String> =
        ["open the door", "read a page", "close it", "find the way home", "write", "sleep well"]
            .iter()
            .flat_map(|what| [format!("Failed to {what}"), format!("Unable to {what}")])
            .collect();
    assert_eq!(templates(&lines.iter().map(String::as_str).collect::<Vec<_>>()), 12);
}

#[test]
fn a_value_before_a_long_text_may_be_of_several_words() {
    let what = [
        "dentry cache",
        "route",
        "inode",
        "listening port of peers",
        "socket bind",
        "flow",
        "name",
        "user event",
    ];
    let mut miner = Miner::new(1000);
    let lines =
        what.iter().enumerate().map(|(i, what)| format!("{what} hash table size: {i} (shift: {i}, linear)"));
    let ids = ids(&mut miner, lines);
    assert_eq!(miner.text(ids[0]), "<*> hash table size: <*> (shift: <*>, linear)");
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn a_name_that_begins_a_line_is_a_value_like_those_with_numbers() {
    let lines = ["libfoo2 is not yet installed", "libbar is not yet installed", "awk is not yet installed"];
    assert_eq!(templates(&lines), 1);
}

#[test]
fn names_that_are_known_later_are_values_where_they_were_seen() {
    let mut lines = vec!["a key of ann was taken at 7".to_owned(), "a key of bob was taken at 8".to_owned()];
    assert_eq!(templates(&lines.iter().map(String::as_str).collect::<Vec<_>>()), 2);
    lines.extend(NAMES.iter().map(|name| format!("user {name} has logged in from 10.0.0.1")));
    assert_eq!(templates(&lines.iter().map(String::as_str).collect::<Vec<_>>()), 2);
}

#[test]
fn statements_of_sql_are_values() {
    let lines = [
        "took 3 ms  statement: SELECT a, b FROM t WHERE id = 3",
        "took 4 ms  statement: update t set a = 7",
        "took 5 ms  statement: INSERT INTO t (a, b) VALUES (1, 2)",
    ];
    assert_eq!(templates(&lines), 1);
    assert_eq!(templates(&["menu: select an entry", "menu: select a line"]), 2);
}

#[test]
fn who_asked_is_one_value_whatever_stands_before() {
    let line = |user: &str| {
        format!(r#"web-1 access: 10.0.0.7 - {user} [21/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 3"#)
    };
    assert_eq!(templates(&[&line("-"), &line("ann"), &line("bob")]), 1);
}

#[test]
fn what_names_the_event_is_kept() {
    for different in [
        &["10.0.0.1 \"GET /a/1 HTTP/1.1\" 200", "10.0.0.1 \"POST /a/1 HTTP/1.1\" 200"][..],
        &["restart counter is at 1", "reload counter is at 1"],
        &["total of 3 errors", "total of 3 errors over 7 seconds"],
        &["fetch enabled.........1", "fetch disabled.........1"],
        &["[warn] not here", "[error] not here"],
        &["rpc.statd has started", "rpc.idmapd has started"],
        &["he came,saw it", "he went,saw it"],
        &["is ready, now", "is broken, now"],
        &["[id=1] has started", "[id=1, of=2] has ended"],
        &["the store was read (7 ms in all)", "the store was read (at 7 of 8)"],
        &["it is nearTop of all of us now", "it is farOff of all of us now"],
        &["it is half-open to all of us", "it is half-shut to all of us"],
        &["job j1 ended with state=done", "job j2 ended with state=broken"],
        &["usage: add <name or path> to it", "usage: add <a> to it"],
        &["a_b of c_d up", "e_f of g_h up"],
        &[
            "CONN_OPENED: peer=7 of all seen here",
            "CONN_CLOSED: peer=8 of all seen here",
            "CONN_LOST: peer=9 of all seen here",
            "POLL_ENDED: peer=10 of all seen here",
        ],
        &["msg=0x7f3a proc=66 len=36", "server=0x7f3a peer=0x7f3b message=0x7f3c"],
        &["the map has level => high now", "the map has colour => red now"],
    ] {
        assert_eq!(templates(different), different.len(), "{different:?}");
    }
}

#[test]
fn a_message_field_that_holds_no_text_is_a_field() {
    let lines = ["server=0x1 msg=0x55d0 n=7", "ctx=0x1 msg=0x55d1 proc=8"];
    assert_eq!(templates(&lines), 2);
    assert_eq!(templates(&["server=0x1 msg=0x55d0 n=7", "server=0x2 msg=0x66 n=8"]), 1);
}

#[test]
fn json_and_logfmt_lines_are_their_message() {
    let mut miner = Miner::new(10_000);
    for (line, expected) in [
        (r#"{"ts":1,"level":"info","msg":"took 5 ms for \"a\" today","n":{"msg":"no"}}"#, "took <*> for"),
        (r#"2026-11-21T10:00:00Z stdout F {"message":"cache is warm","a":[1,{"b":2}]}"#, "cache is warm"),
        (r#"ts=2026-11-21T10:00:00Z level=info msg="request 17 done" took=3ms"#, "request <*> done"),
        (r#"{"a":1,"b":"x"}"#, r#""a":<*>,"b":<*>"#),
    ] {
        let id = miner.add(line.as_bytes()).template;
        assert!(miner.text(id).contains(expected), "{line}: {}", miner.text(id));
    }
}

#[test]
fn any_bytes_are_a_line() {
    let mut miner = Miner::new(100);
    let mut x = 7_u64;
    for length in 0..3000_usize {
        let line: Vec<u8> = (0..length % 300)
            .map(|_| {
                x = mix(x.wrapping_add(1));
                {
                    const BYTES: &[u8] = b" =:\"'{}[]()<>\\/.-,;1a\xff\x1b\n|*";
                    BYTES[x as usize % BYTES.len()]
                }
            })
            .collect();
        let found = miner.add(&line);
        assert_eq!(miner.add(&line).line, found.line);
        let _ = miner.text(found.template);
    }
    assert!(miner.len() <= 100);
    let long = "word ".repeat(100_000);
    miner.add(long.as_bytes());
    miner.add(b"\xff\xfe broken \xc3( bytes");
}

#[test]
fn memory_is_bounded_and_the_busy_one_stays() {
    let mut miner = Miner::new(200);
    let hot = miner.add(b"the one that stays busy").template;
    for i in 0..20_000_u32 {
        let word: String = i.to_string().bytes().map(|b| char::from(b - b'0' + b'a')).collect();
        miner.add(format!("{word} {}", "x ".repeat(i as usize % 40)).as_bytes());
        assert_eq!(miner.add(b"the one that stays busy").template, hot);
        assert!(miner.len() <= 200);
    }
    assert!(miner.shapes.len() <= 200 && miner.rows.len() <= 600);
}

/// What a consumer that keys on template ids sees.
#[derive(Default)]
struct Consumer(BTreeSet<TemplateId>);

impl Consumer {
    fn follow(&mut self, miner: &mut Miner, found: Found) {
        for change in miner.take_changes() {
            match change {
                Change::Merged { from, into } => {
                    if self.0.remove(&from) {
                        self.0.insert(into);
                    }
                }
                Change::Parted { into, .. } => drop(self.0.insert(into)),
                Change::Forgotten(id) => drop(self.0.remove(&id)),
            }
        }
        self.0.insert(found.template);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn who_follows_the_changes_knows_just_the_templates_that_there_are(
        lines in prop::collection::vec("[a-d]{1,2}( [a-c7:=]{1,2}){0,4}", 1..200),
    ) {
        let mut miner = Miner::new(20);
        let mut consumer = Consumer::default();
        for line in &lines {
            let found = miner.add(line.as_bytes());
            consumer.follow(&mut miner, found);
            prop_assert_eq!(miner.resolve(found.line), found.template);
            for id in &consumer.0 {
                prop_assert!(!miner.text(*id).is_empty());
                prop_assert_eq!(miner.resolve(*id), *id);
            }
            prop_assert!(miner.len() <= 20 && consumer.0.len() <= 20 && miner.rows.len() <= 60);
            let again = miner.add(line.as_bytes());
            prop_assert!(!again.new, "a line that was just seen is known");
            consumer.follow(&mut miner, again);
        }
    }
}

#[test]
fn a_stack_trace_is_its_first_line_and_its_last_cause() {
    let mut miner = Miner::new(100);
    let java = "java.lang.IllegalStateException: cannot charge order 17\n\tat shop.Pay.charge(Pay.java:7)\n\
                Caused by: java.io.IOException: card\n\tat x.Y.z(Y.java:2)\n\
                Caused by: java.net.ConnectException: refused by 10.0.0.1\n\tat x.Y.z(Y.java:3)\n\t... 7 more";
    let python = "Traceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    pay()\nValueError: bad amount 7\n";
    for (trace, expected) in [
        (
            java,
            "java.lang.IllegalStateException: cannot charge order <*> Caused by: java.net.ConnectException: refused by <*>",
        ),
        (python, "Traceback (most recent call last): ValueError: bad amount <*>"),
        ("two lines\nCaused by: ", "two lines Caused by:"),
        ("\n\n  late start\nmore", "late start"),
    ] {
        let id = miner.add(trace.as_bytes()).template;
        assert_eq!(miner.text(id), expected);
    }
}

fn saved(miner: &Miner) -> Vec<u8> {
    rmp_serde::to_vec_named(miner).expect("plain values")
}

#[test]
fn a_saved_state_goes_on() {
    let mut miner = Miner::new(10_000);
    let before = ids(&mut miner, corpus().iter().map(|c| c.1.clone()));
    let state = saved(&miner);
    let mut again: Miner = rmp_serde::from_slice(&state).expect("its own state");
    assert_eq!(again.len(), miner.len());
    for ((template, line), id) in corpus().into_iter().zip(before) {
        let found = again.add(line.as_bytes());
        assert_eq!((found.template, found.new), (id, false), "{line}");
        assert_eq!(again.text(id), template);
    }
    let old = [(&b"\xa6format\x05"[..], &b"\xa6format\x01"[..])];
    let at = state.windows(8).position(|w| w == old[0].0).expect("the format is saved");
    let other = [&state[..at], old[0].1, &state[at + 8..]].concat();
    let refused = rmp_serde::from_slice::<Miner>(&other).err().expect("of another version").to_string();
    assert!(refused.contains("templates of format 1, this version writes 5"), "{refused}");
}

#[test]
fn ids_are_found_backwards() {
    for key in [0, 1, 42, u64::MAX, 0x1234_5678_9abc_def0] {
        assert_eq!(unmix(mix(key)), key);
    }
}
