//! The controller's.

use super::catalogue;
use crate::family::Component;

catalogue! { &[Component::Controller];
    LEADER = Gauge None "weft_controller_leader" [], "1 on the replica that writes statuses.";
    CLIENTS = Gauge None "weft_controller_clients" [], "Proxies that follow this replica's configuration.";
    CLIENTS_REFUSED = Counter None "weft_controller_clients_refused_total" [], "Proxies that were not let in.";
    PUSH_TO_ACK = Histogram Seconds "weft_controller_push_to_ack_seconds" [], "From a publication to a proxy's word that it has applied it, for each proxy.";
    COMMIT = Histogram Seconds "weft_controller_commit_seconds" [], "Time to turn a batch of changed objects into configuration and statuses.";
    NACKS = Counter None "weft_controller_nacks_total" [&["type"]], "Responses that a proxy could not use all of, by type of resource.";
    REFUSED_RESOURCES = Gauge None "weft_controller_refused_resources" [], "Resources that a proxy of this replica refuses now.";
    OBJECTS = Gauge None "weft_controller_objects" [&["kind"]], "Objects of the cluster that the controller knows.";
    RESOURCES = Gauge None "weft_controller_resources" [], "Resources that the configuration has.";
    UNREADABLE = Gauge None "weft_controller_unreadable_objects" [], "Objects that could not be read whole.";
    STATUS_WRITES = Counter None "weft_controller_status_writes_total" [&["result"]], "Statuses written, by result.";
    API_ERRORS = Counter None "weft_controller_api_errors_total" [&["what"]], "Failed calls of the API server, but for watches, by what they were for.";
    QUEUE = Gauge None "weft_controller_queue_length" [&["queue"]], "What waits to be done: facts of the cluster that are not in the configuration yet, and statuses that are not written.";
}
