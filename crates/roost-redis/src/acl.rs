//! What a user of Redis must be allowed: the commands that this crate and its scripts send, on the keys
//! and channels of one prefix.

use crate::error::StartError;
use crate::keys::Keys;

/// Every command that is sent, with its subcommand where only that is needed.
pub(crate) const COMMANDS: &[&str] = &[
    // Connections, and what is looked at when they are made. AUTH needs no right; SELECT is for a database
    // other than 0.
    "select",
    "ping",
    "role",
    "time",
    "info",
    "config|get",
    "asking",
    "cluster|info",
    "cluster|slots",
    "wait",
    // Scripts, what they call, and what reads without one.
    "eval",
    "evalsha",
    "decrby",
    "del",
    "exists",
    "get",
    "hdel",
    "hget",
    "hgetall",
    "hincrby",
    "hmget",
    "hset",
    "hsetnx",
    "incrby",
    "lrange",
    "ltrim",
    "persist",
    "pexpire",
    "pexpireat",
    "pexpiretime",
    "rpush",
    "sadd",
    "set",
    "smembers",
    "srandmember",
    "srem",
    "xadd",
    "xinfo|stream",
    "xread",
    "xrevrange",
    "zadd",
    "zcard",
    "zcount",
    "zrandmember",
    "zrange",
    "zrangebylex",
    "zrangebyscore",
    "zrank",
    "zrem",
    "zremrangebyscore",
    "zrevrange",
    "zrevrangebyscore",
    "zscore",
    // Channels, plain and sharded.
    "publish",
    "subscribe",
    "unsubscribe",
    "spublish",
    "ssubscribe",
    "sunsubscribe",
];

/// What durability "fsync" needs besides; a server older than 7.2 does not know it, nor a rule with it.
const FSYNC: &str = "waitaof";

/// The arguments of `ACL SETUSER` for a user of a hub with this prefix: `NAME on >PASSWORD …`. The
/// password is for whoever uses it to put in.
pub fn acl_rule(prefix: &str, user: &str, fsync: bool) -> Result<String, StartError> {
    Keys::new(prefix)?;
    Ok(format!("{user} on >PASSWORD {}", permissions(prefix, fsync)))
}

/// The arguments of `ACL SETUSER`, at a sentinel, for a user of a hub.
pub fn sentinel_acl_rule(user: &str) -> String {
    format!(
        "{user} on >PASSWORD resetkeys resetchannels &+switch-master -@all +ping +sentinel|master \
         +subscribe +unsubscribe"
    )
}

/// What the user may do: keys, channels, commands.
fn permissions(prefix: &str, fsync: bool) -> String {
    let mut rule = format!("resetkeys ~{prefix}:* resetchannels &{prefix}:* -@all");
    for command in COMMANDS.iter().chain(fsync.then_some(&FSYNC)) {
        rule.push_str(" +");
        rule.push_str(command);
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_scripts_is_in_the_rule_and_no_other() {
        let mut called: Vec<String> = Vec::new();
        for source in crate::script::sources() {
            for part in source.split("redis.call('").chain(source.split("redis.pcall('")).skip(1) {
                if let Some((name, _)) = part.split_once('\'')
                    && name.bytes().all(|byte| byte.is_ascii_uppercase())
                {
                    called.push(name.to_ascii_lowercase());
                }
            }
        }
        for name in &called {
            assert!(COMMANDS.contains(&name.as_str()), "{name} is missing");
        }
        // What is sent from elsewhere.
        let sent = [
            "select",
            "ping",
            "role",
            "time",
            "info",
            "config|get",
            "asking",
            "cluster|info",
            "cluster|slots",
            "wait",
            "eval",
            "evalsha",
            "get",
            "hmget",
            "hsetnx",
            "hgetall",
            "zcard",
            "zrangebylex",
            "zrevrangebyscore",
            "xrevrange",
            "xread",
            "xinfo|stream",
            "lrange",
            "publish",
            "subscribe",
            "unsubscribe",
            "spublish",
            "ssubscribe",
            "sunsubscribe",
        ];
        for command in COMMANDS {
            let known = sent.contains(command) || called.iter().any(|name| name == command);
            assert!(known, "nothing needs {command}");
        }
    }
}
