//! One opening of the bank: transactions that overlap, and what must hold of every picture.

use std::collections::BTreeSet;

use treering::{Client, Db, Durability, Error, Isolation, Snapshot, Ticket, Transaction, Tree, sim};

use super::{BALANCE, Run, Touches};

/// An account: tree and number.
type Account = (usize, u64);

/// The keys and values of each tree.
type Picture = Vec<Vec<(Vec<u8>, Vec<u8>)>>;

/// What a life has at hand.
struct Hands {
    db: Db,
    client: Client,
    accounts: Vec<Tree>,
    duty: [Tree; 2],
    journal: Tree,
    count: Tree,
    open: Vec<Open>,
    sent: Vec<Sent>,
    /// Requests sent in this life: whoever saw none after its beginning had no competitor.
    sends: u64,
}

/// A transaction that is begun and has read what it needs.
struct Open {
    transaction: Transaction,
    work: Work,
    sync: bool,
    /// `Hands::sends` when it began; `None` if something was under way then.
    alone_since: Option<u64>,
}

enum Work {
    /// From the first account to each of the others.
    Transfer {
        accounts: Vec<Account>,
        found: Vec<(i64, u64)>,
        amount: i64,
    },
    Duty {
        number: u64,
        on: [bool; 2],
        keep: usize,
    },
    Journal {
        entries: u64,
    },
}

/// A request that was sent and not waited for.
struct Sent {
    ticket: Ticket<()>,
    touched: Vec<Account>,
    sync: bool,
    /// `Hands::sends` if nothing was under way from its beginning until it was sent: while nothing more is sent, a
    /// conflict would be wrong.
    alone: Option<u64>,
}

/// Each pair is in two trees.
const PAIRS: u64 = 3;

fn encode((balance, touches): (i64, u64)) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&balance.to_le_bytes());
    value[8..].copy_from_slice(&touches.to_le_bytes());
    value
}

fn decode(value: &[u8]) -> Option<(i64, u64)> {
    let (balance, touches) = value.split_first_chunk::<8>()?;
    Some((
        i64::from_le_bytes(*balance),
        u64::from_le_bytes(touches.try_into().ok()?),
    ))
}

fn number(value: Option<&[u8]>) -> u64 {
    value
        .and_then(|value| value.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// Errors are excused by a power cut alone.
fn excused<T>(db: &Db, what: &str, answer: treering::Result<T>) -> Result<Option<T>, String> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(_) if sim::is_cut(db) => Ok(None),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

/// Every tree is one, and every page has one owner. The power may be cut meanwhile.
fn sound(db: &Db) -> Result<(), String> {
    sim::check(db).or_else(|error| if sim::is_cut(db) { Ok(()) } else { Err(error) })
}

impl Hands {
    /// Everything that a snapshot shows, tree by tree.
    fn picture(&self, snapshot: &Snapshot) -> treering::Result<Picture> {
        let trees = self
            .accounts
            .iter()
            .chain(&self.duty)
            .chain([&self.journal, &self.count]);
        trees
            .map(|tree| {
                let items = snapshot.range::<&[u8]>(tree, ..)?;
                items
                    .map(|item| item.map(|(key, value)| (key.to_vec(), value.to_vec())))
                    .collect()
            })
            .collect()
    }
}

impl Run {
    /// Opens, compares, works, and ends; by a power cut or cleanly.
    pub(super) fn live(&mut self, cut: bool) -> Result<(), String> {
        let simulation = self.simulation(cut);
        let cuts = self.disk.counters().power_cuts;
        let db = match sim::open(&self.disk, &self.options(), simulation) {
            Ok(db) => db,
            Err(_) if self.disk.counters().power_cuts > cuts => return Ok(()),
            Err(error) => return Err(format!("opening: {error}")),
        };
        self.outcome.replayed += db.stats().records_replayed;
        let result = self.work(&db);
        self.outcome.steps += sim::steps(&db);
        self.outcome.checkpoints += db.stats().checkpoints;
        self.outcome.moves += db.stats().partition_moves;
        self.outcome.joins += db.stats().partition_joins;
        if result.is_err() || sim::is_cut(&db) || cut && self.random.one_in(2) {
            sim::crash(db);
            return result;
        }
        let other = db.clone();
        if let Err(error) = db.close() {
            let is_cut = sim::is_cut(&other);
            sim::crash(other);
            return if is_cut {
                Ok(())
            } else {
                Err(format!("closing: {error}"))
            };
        }
        self.disk.kill_process();
        Ok(())
    }

    fn work(&mut self, db: &Db) -> Result<(), String> {
        let opened = self.open(db);
        let Some(mut hands) = excused(db, "opening trees", opened)? else {
            return Ok(());
        };
        // Now and then work begins while recovery is still busy.
        if !self.random.one_in(4) {
            sound(db).map_err(|error| format!("after recovery: {error}"))?;
        }
        self.audit(&hands, true)?;
        let Some(held) = self.hold_throughout(&hands)? else {
            return Ok(());
        };
        for _ in 0..60 + self.random.below(120) {
            if sim::is_cut(db) {
                return Ok(());
            }
            self.operate(&mut hands)?;
        }
        while let Some(open) = hands.open.pop() {
            self.send(&mut hands, open)?;
        }
        while !hands.sent.is_empty() {
            self.settle(&mut hands)?;
        }
        self.audit(&hands, false)?;
        let (snapshot, first) = held;
        if excused(db, "looking", hands.picture(&snapshot))?.is_some_and(|found| found != first) {
            return Err("the snapshot that is held throughout has changed".into());
        }
        drop((snapshot, hands));
        sound(db)
    }

    /// Takes a snapshot that is held to the end of the life, over every checkpoint and move.
    fn hold_throughout(&mut self, hands: &Hands) -> Result<Option<(Snapshot, Picture)>, String> {
        let snapshot = hands.client.snapshot();
        let found = excused(&hands.db, "looking", hands.picture(&snapshot))?;
        Ok(found.map(|found| (snapshot, found)))
    }

    fn open(&mut self, db: &Db) -> treering::Result<Hands> {
        let client = db.client();
        let mut trees = Vec::new();
        for tree in 0..self.trees {
            trees.push(client.tree(&format!("accounts {tree}"))?);
        }
        let hands = Hands {
            db: db.clone(),
            duty: [client.tree("duty 0")?, client.tree("duty 1")?],
            journal: client.tree("journal")?,
            count: client.tree("count")?,
            accounts: trees,
            client,
            open: Vec::new(),
            sent: Vec::new(),
            sends: 0,
        };
        if self.filler_bytes > 0 && !hands.count.contains(b"founded")? {
            let filler = vec![0; self.filler_bytes];
            for tree in &hands.accounts {
                let beside = |account: u64| [&account.to_be_bytes()[..], b"beside"].concat();
                (0..self.accounts).try_for_each(|account| tree.put(beside(account), &filler))?;
            }
        }
        // All at once, or not yet.
        hands.client.transact(|tx| {
            if tx.contains(&hands.count, b"founded")? {
                return Ok(());
            }
            tx.put(&hands.count, b"founded", b"")?;
            for tree in &hands.accounts {
                for account in 0..self.accounts {
                    tx.put(tree, account.to_be_bytes(), encode((BALANCE, 0)))?;
                }
            }
            for tree in &hands.duty {
                (0..PAIRS).try_for_each(|pair| tx.put(tree, pair.to_be_bytes(), b"on"))?;
            }
            Ok(())
        })?;
        Ok(hands)
    }

    fn account(&mut self) -> Account {
        (
            self.random.below(self.trees as u64) as usize,
            self.random.below(self.accounts),
        )
    }

    fn operate(&mut self, hands: &mut Hands) -> Result<(), String> {
        match self.random.below(20) {
            0..6 if hands.open.len() < self.open_max => self.begin(hands),
            0..12 if !hands.open.is_empty() => {
                let chosen = self.random.below(hands.open.len() as u64) as usize;
                let open = hands.open.swap_remove(chosen);
                self.send(hands, open)
            }
            12..14 => self.touch(hands),
            14 => self.noise(hands),
            15 => self.audit(hands, false),
            16 if self.random.one_in(8) => {
                excused(&hands.db, "a checkpoint", hands.db.checkpoint()).map(drop)
            }
            16..18 if !hands.sent.is_empty() => self.settle(hands),
            _ => {
                while hands.sent.len() > self.open_max {
                    self.settle(hands)?;
                }
                for _ in 0..self.random.below(60) {
                    sim::step(&hands.db);
                }
                Ok(())
            }
        }
    }

    // ---- transactions ----

    fn begin(&mut self, hands: &mut Hands) -> Result<(), String> {
        let kind = self.random.below(6);
        // Write skew and phantoms are what snapshot isolation allows.
        let snapshot = kind < 4 && self.random.one_in(3);
        let isolation = if snapshot {
            Isolation::Snapshot
        } else {
            Isolation::Serializable
        };
        let alone_since = hands.sent.is_empty().then_some(hands.sends);
        let begun = hands.client.begin(isolation);
        let Some(mut transaction) = excused(&hands.db, "beginning", begun)? else {
            return Ok(());
        };
        let sync = !self.random.one_in(4);
        if !sync {
            transaction.set_durability(Durability::Buffered);
        }
        let read = match kind {
            0..4 => {
                let mut accounts = BTreeSet::new();
                for _ in 0..2 + self.random.below(3) {
                    accounts.insert(self.account());
                }
                if accounts.len() == 1 {
                    return Ok(());
                }
                let accounts: Vec<Account> = accounts.into_iter().collect();
                let look = |&(tree, account): &Account| {
                    let value = transaction.get(&hands.accounts[tree], account.to_be_bytes())?;
                    Ok(value.and_then(|value| decode(&value)).unwrap_or_default())
                };
                let found = accounts.iter().map(look).collect::<treering::Result<_>>();
                let amount = self.random.below(50) as i64;
                found.map(|found| Work::Transfer {
                    accounts,
                    found,
                    amount,
                })
            }
            4 => {
                let number = self.random.below(PAIRS);
                let keep = self.random.below(2) as usize;
                let look = |side: usize| {
                    let value = transaction.get(&hands.duty[side], number.to_be_bytes())?;
                    Ok(value.is_some_and(|value| value == b"on"))
                };
                (|| {
                    Ok(Work::Duty {
                        number,
                        on: [look(0)?, look(1)?],
                        keep,
                    })
                })()
            }
            _ => {
                let backwards = self.random.one_in(2);
                transaction.range(&hands.journal, ..).and_then(|mut range| {
                    let mut entries = 0;
                    while let Some(item) = if backwards {
                        range.next_back()
                    } else {
                        range.next()
                    } {
                        item?;
                        entries += 1;
                    }
                    drop(range);
                    Ok(Work::Journal { entries })
                })
            }
        };
        if let Some(work) = excused(&hands.db, "reading", read)? {
            hands.open.push(Open {
                transaction,
                work,
                sync,
                alone_since,
            });
        }
        Ok(())
    }

    /// Writes and commits, without waiting.
    fn send(&mut self, hands: &mut Hands, open: Open) -> Result<(), String> {
        let Open {
            mut transaction,
            work,
            sync,
            alone_since,
        } = open;
        let mut touched = Vec::new();
        let write = |transaction: &mut Transaction, touched: &mut Vec<Account>| -> treering::Result<()> {
            match work {
                Work::Transfer {
                    accounts,
                    found,
                    amount,
                } => {
                    let others = accounts.len() as i64 - 1;
                    for (index, ((tree, account), (balance, touches))) in
                        accounts.iter().zip(found).enumerate()
                    {
                        let change = if index == 0 { -amount * others } else { amount };
                        let value = encode((balance + change, touches + 1));
                        transaction.put(&hands.accounts[*tree], account.to_be_bytes(), value)?;
                    }
                    touched.extend(accounts);
                    Ok(())
                }
                Work::Duty {
                    number,
                    on: [true, true],
                    keep,
                } => transaction.put(&hands.duty[1 - keep], number.to_be_bytes(), b"off"),
                Work::Duty { number, on, .. } => {
                    let off = usize::from(on[0]);
                    transaction.put(&hands.duty[off], number.to_be_bytes(), b"on")
                }
                Work::Journal { entries } => {
                    // A key that no other transaction uses, anywhere in the range.
                    let unique = transaction.seq().wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ hands.sends;
                    let entry = vec![1; 5 + self.filler_bytes];
                    transaction.put(&hands.journal, unique.to_be_bytes(), entry)?;
                    transaction.put(&hands.count, b"entries", (entries + 1).to_le_bytes())
                }
            }
        };
        // By one thread after the other, or by threads of their own.
        let send = if self.random.one_in(2) {
            Transaction::send
        } else {
            sim::commit
        };
        let sent = write(&mut transaction, &mut touched).and_then(|()| send(transaction));
        let was_alone = alone_since == Some(hands.sends);
        hands.sends += 1;
        let alone = was_alone.then_some(hands.sends);
        if let Some(ticket) = excused(&hands.db, "sending a transaction", sent)? {
            self.expect(&touched);
            hands.sent.push(Sent {
                ticket,
                touched,
                sync,
                alone,
            });
        }
        Ok(())
    }

    fn expect(&mut self, touched: &[Account]) {
        for account in touched {
            self.touches.entry(*account).or_default().most += 1;
        }
    }

    // ---- single requests between them ----

    /// An update of one account at its owner.
    fn touch(&mut self, hands: &mut Hands) -> Result<(), String> {
        let (tree, account) = self.account();
        let sync = self.random.one_in(2);
        let durability = if sync {
            Durability::Sync
        } else {
            Durability::Buffered
        };
        let tree_handle = hands.accounts[tree].with_durability(durability);
        let sent = tree_handle.send_update(account.to_be_bytes(), |value| {
            let (balance, touches) = value.and_then(decode).unwrap_or_default();
            Some(encode((balance, touches + 1)).to_vec())
        });
        hands.sends += 1;
        if let Some(ticket) = excused(&hands.db, "sending an update", sent)? {
            let touched = vec![(tree, account)];
            self.expect(&touched);
            hands.sent.push(Sent {
                ticket,
                touched,
                sync,
                alone: None,
            });
        }
        Ok(())
    }

    /// A blind batch over all trees.
    fn noise(&mut self, hands: &mut Hands) -> Result<(), String> {
        let mut batch = hands.client.batch();
        let value = vec![7; self.random.below(3_000) as usize];
        for tree in &hands.accounts {
            batch.put(tree, b"noise", &value);
        }
        hands.sends += 1;
        if let Some(ticket) = excused(&hands.db, "sending a batch", batch.send())? {
            hands.sent.push(Sent {
                ticket,
                touched: Vec::new(),
                sync: true,
                alone: None,
            });
        }
        Ok(())
    }

    /// Waits for one answer.
    fn settle(&mut self, hands: &mut Hands) -> Result<(), String> {
        let chosen = self.random.below(hands.sent.len() as u64) as usize;
        let sent = hands.sent.swap_remove(chosen);
        let answer = sent.ticket.wait();
        if matches!(answer, Err(Error::Conflict)) {
            if sent.alone == Some(hands.sends) {
                return Err("a transaction without competitors was refused".into());
            }
            self.outcome.refused += 1;
            for account in &sent.touched {
                self.touches.entry(*account).or_default().most -= 1;
            }
            return Ok(());
        }
        if excused(&hands.db, "an answer", answer)?.is_some() {
            self.outcome.operations += 1;
            for account in &sent.touched {
                let touches = self.touches.entry(*account).or_default();
                touches.least += 1;
                touches.durable += u64::from(sent.sync);
            }
        }
        Ok(())
    }

    // ---- what must hold ----

    /// Looks at everything in one snapshot. `recovered`: what is found is what there is now.
    fn audit(&mut self, hands: &Hands, recovered: bool) -> Result<(), String> {
        let snapshot = hands.client.snapshot();
        let looked = self.look(hands, &snapshot, recovered);
        match looked {
            Ok(finding) => finding,
            Err(error) => excused(&hands.db, "an audit", Err::<(), Error>(error)).map(drop),
        }
    }

    fn look(
        &mut self,
        hands: &Hands,
        snapshot: &Snapshot,
        recovered: bool,
    ) -> treering::Result<Result<(), String>> {
        let mut sum = 0;
        for (tree, handle) in hands.accounts.iter().enumerate() {
            for account in 0..self.accounts {
                let value = snapshot.get(handle, account.to_be_bytes())?;
                let Some((balance, touches)) = value.as_deref().and_then(decode) else {
                    return Ok(Err(format!("account {account} of tree {tree} holds {value:?}")));
                };
                sum += balance;
                let known = self.touches.entry((tree, account)).or_default();
                let least = if recovered { known.durable } else { known.least };
                if touches < least || touches > known.most {
                    return Ok(Err(format!(
                        "account {account} of tree {tree} was touched {touches} times, not {least} to {}",
                        known.most
                    )));
                }
                if recovered {
                    *known = Touches {
                        least: touches,
                        durable: touches,
                        most: touches,
                    };
                }
            }
        }
        let expected = BALANCE * self.accounts as i64 * self.trees as i64;
        if sum != expected {
            return Ok(Err(format!("the balances add up to {sum}, not {expected}")));
        }
        for pair in 0..PAIRS {
            let key = pair.to_be_bytes();
            let flags = [
                snapshot.get(&hands.duty[0], key)?,
                snapshot.get(&hands.duty[1], key)?,
            ];
            if flags.iter().flatten().all(|flag| flag == b"off") {
                return Ok(Err(format!("nobody of pair {pair} is on duty")));
            }
        }
        let count = number(snapshot.get(&hands.count, b"entries")?.as_deref());
        let entries = snapshot.len(&hands.journal)?;
        if count != entries {
            return Ok(Err(format!(
                "the journal has {entries} entries, and counts {count}"
            )));
        }
        Ok(Ok(()))
    }
}
