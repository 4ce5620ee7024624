//! Delta xDS client and server, generic over the resource.
