//! quick
mod floor; mod raw; mod world;
use belljar::*;
use std::time::Instant;
fn main() {
    let world = world::World::new().unwrap();
    let mut rows: Vec<(&str, Box<dyn FnMut()>)> = Vec::new();
    for net in [true, false] {
        let mut f = floor::Floor::new(&world, "/true", net);
        f.run().unwrap();
        rows.push((if net {"floor"} else {"floor -net"}, Box::new(move || f.run().unwrap())));
        for init in [Init::Shim, Init::Payload] {
            let s = Sandbox::builder(RootFs::overlay(world.layers.clone()).upper(Upper::Discard{bytes:Bytes::mib(16),inodes:1024}))
      .namespaces(Namespaces::isolated().net(if net {Net::New} else {Net::Inherit}).time(Time::Inherit).cgroup(Cgroup::Inherit)).mounts(Mounts::none().mount(Mount::proc("/proc"))).init(init).build().unwrap();
            let c = Command::new("/true");
            rows.push((match (init,net) {(Init::Shim,true)=>"shim",(Init::Shim,false)=>"shim -net",(_,true)=>"payload",_=>"payload -net"}, Box::new(move || { assert!(s.status(&c).unwrap().success()) })));
        }
    }
    let only = std::env::var("ONLY").ok();
    if let Some(o) = &only { rows.retain(|r| r.0 == o); }
    let n: usize = std::env::var("N").ok().and_then(|v| v.parse().ok()).unwrap_or(60);
    let idle = std::env::var("IDLE").ok().and_then(|v| v.parse().ok()).unwrap_or(0u64);
    let mut t = vec![vec![]; rows.len()];
    for _ in 0..n {
        for (i, r) in rows.iter_mut().enumerate() {
            for k in 0..10 {
                if idle > 0 { if k > 0 { break; } std::thread::sleep(std::time::Duration::from_millis(idle)); }
                let s = Instant::now(); (r.1)(); if idle > 0 || k >= 2 { t[i].push(s.elapsed().as_nanos() as f64 / 1e3); }
            }
        }
    }
    for (i, r) in rows.iter().enumerate() {
        t[i].sort_by(f64::total_cmp);
        println!("{:14} min {:7.0} p10 {:7.0} med {:7.0} p99 {:7.0}  x{:.2}", r.0, t[i][0], t[i][t[i].len()/10], t[i][t[i].len()/2], t[i][t[i].len()*99/100], t[i][t[i].len()/2]/ {let j = if i<3 {0} else {3.min(rows.len()-1)}; t[j][t[j].len()/2]});
    }
}
