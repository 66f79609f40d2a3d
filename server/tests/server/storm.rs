//! Devices that write, delete, come and go at random while the server is killed: in the end all are
//! equal.

use crate::common::{Chance, Device, LIMIT, Server, name};

const DEVICES: usize = 4;
const STEPS: usize = 400;
const KEYS: usize = 12;
const FIELDS: [&str; 3] = ["title", "body", "done"];

/// One random edit; what does not fit the record as the device shows it is left out.
fn edit(device: &Device, chance: &mut Chance, step: usize) {
    let (table, first) = name("notes", &format!("n{}", chance.below(KEYS)));
    let (_, second) = name("notes", &format!("n{}", chance.below(KEYS)));
    let field = FIELDS[chance.below(FIELDS.len())];
    let what = chance.below(10);
    let value = format!(r#"{{"{field}":"step {step}"}}"#);
    let record = lastword::core::json::parse_record(&value).expect("a record");
    let written = device.ws.write(|tx| {
        for key in [&first, &second] {
            let result = match what {
                0..=3 => tx.put_record(&table, key, record.clone()),
                4..=6 => tx.patch_record(&table, key, record.fields().to_vec(), Vec::new()),
                7 => tx.patch_record(&table, key, Vec::new(), vec![field.to_owned()]),
                8 => tx.delete_record(&table, key),
                _ => tx.undelete_record(&table, key),
            };
            match result {
                Ok(())
                | Err(lastword::Error::NotFound { .. } | lastword::Error::NotDeleted { .. }) => {}
                // An undelete and an edit of one record need two writes.
                Err(lastword::Error::Record { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    });
    written.expect("the write is durable");
}

/// Rows of every table that syncs, those of the product too.
fn copy(device: &Device) -> Vec<Vec<(String, String)>> {
    ["notes", "_conflicts", "_devices"].map(|table| device.rows(table)).into()
}

/// I16, I17, I19, I22, R2.4: whatever devices do, in whatever order they meet the server, and
/// however often it dies, they end with the same rows, the same conflicts and the same digest as
/// the server, with nothing waiting and nothing refused.
#[test]
fn devices_in_a_storm_end_equal() {
    let seed =
        std::env::var("LASTWORD_STORM_SEED").map_or(20_261_124, |s| s.parse().expect("a number"));
    let mut chance = Chance::new(seed);
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::start(&dir.path().join("server"));
    let path = |number: usize| dir.path().join(format!("device-{number}"));
    let mut devices: Vec<Device> = (0..DEVICES).map(|number| Device::open(&path(number))).collect();
    for step in 0..STEPS {
        let number = chance.below(DEVICES);
        match chance.below(100) {
            0 => server.restart(),
            1..=6 => devices[number].disconnect(),
            7..=16 if devices[number].sync.is_none() => devices[number].connect(&server.url, "ann"),
            17..=19 => {
                // The process of a device ends and starts again.
                devices[number].disconnect();
                devices[number].db.close().expect("closes");
                devices[number] = Device::open(&path(number));
            }
            _ => edit(&devices[number], &mut chance, step),
        }
    }
    for device in &mut devices {
        device.disconnect();
        device.connect(&server.url, "ann");
    }
    // The first round sends what each has, the second brings it to the others.
    for _ in 0..2 {
        for device in &mut devices {
            let sync = device.sync.as_ref().expect("connected");
            let live = |status: &lastword::SyncStatus| {
                matches!(status, lastword::SyncStatus::Live { .. })
                    && device.ws.waiting().expect("it reads") == 0
            };
            let status = sync.wait_status(device.ws.name(), Some(LIMIT), live);
            assert!(status.expect("sync runs").is_some(), "seed {seed}");
            device.disconnect();
            device.connect(&server.url, "ann");
            device.caught_up();
        }
    }
    let first = devices[0].ws.status().expect("it reads");
    let rows = copy(&devices[0]);
    assert!(rows.iter().all(|table| !table.is_empty()), "seed {seed}: a storm without conflicts");
    for (number, device) in devices.iter().enumerate() {
        let status = device.ws.status().expect("it reads");
        assert_eq!((status.undecided, status.dead_letters), (0, 0), "seed {seed}, device {number}");
        assert_eq!(copy(device), rows, "seed {seed}, device {number}");
        assert_eq!(status.digest, first.digest, "seed {seed}, device {number}");
    }
    drop(devices);
    server.kill();
    let authority = lastword::Authority::open(&dir.path().join("server")).expect("it opens");
    assert_eq!(authority.status().expect("it reads")[0].digest, first.digest, "seed {seed}");
}
