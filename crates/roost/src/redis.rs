//! What the configuration says about Redis, as the store wants it.

use std::sync::Arc;

use roost_cluster::Durability;
use roost_redis::RedisConfig;
use roost_telemetry::metrics::RedisMetrics;

use crate::config::{Problem, Problems, RedisConfig as RedisSection, RedisUrl, Tier};

/// Reads what the section names besides values: a file with a password.
pub(crate) fn config(
    section: &RedisSection,
    url: &RedisUrl,
    metrics: Arc<RedisMetrics>,
) -> Result<RedisConfig, Problems> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|error| {
            let problem = format!("cannot read {}: {error}", path.display());
            Problems(vec![Problem(format!("redis.sentinel_password_file: {problem}"))])
        })
    };
    Ok(RedisConfig {
        prefix: section.prefix.clone(),
        ca_file: section.ca_file.clone(),
        cert_file: section.cert_file.clone(),
        key_file: section.key_file.clone(),
        sentinel_user: section.sentinel_user.clone(),
        sentinel_password: section.sentinel_password_file.as_ref().map(read).transpose()?,
        durability: match section.durability {
            Tier::Memory => Durability::Memory,
            Tier::Replicated => Durability::Replicated,
            Tier::Fsync => Durability::Fsync,
        },
        replicas: section.replicas,
        wait_timeout: section.wait_timeout,
        metrics,
        ..RedisConfig::new(url.0.clone())
    })
}
