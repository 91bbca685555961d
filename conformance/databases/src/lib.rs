//! Real database servers for tests, from Debian's packages, each in a temporary directory of its own
//! and on a port of its own: started, killed with SIGKILL, started again, stopped and removed on drop.

pub mod mariadb;
pub mod port;
pub mod postgresql;
