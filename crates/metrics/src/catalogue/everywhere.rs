//! What every component tells of its process and its build; the names are those of the other Prometheus clients.

use super::catalogue;
use crate::family::Component;

catalogue! { Component::ALL;
    BUILD = Gauge None "weft_build_info" [&["version", "component"]], "Always 1; the labels are the version that runs and which component it is.";
    CPU = Counter Seconds "process_cpu_seconds_total" [], "Processor time that the process has used, user and system.";
    RESIDENT_MEMORY = Gauge Bytes "process_resident_memory_bytes" [], "Memory of the process that is in RAM.";
    VIRTUAL_MEMORY = Gauge Bytes "process_virtual_memory_bytes" [], "Address space of the process.";
    OPEN_FDS = Gauge None "process_open_fds" [], "Open file descriptors.";
    MAX_FDS = Gauge None "process_max_fds" [], "The most file descriptors that may be open.";
    THREADS = Gauge None "process_threads" [], "Threads of the process.";
    START_TIME = Gauge Seconds "process_start_time_seconds" [], "When the process started, in seconds since 1970.";
}
