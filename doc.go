// Package lateen is a service mesh in two halves: a control plane that turns
// configuration into xDS, and a data plane that turns xDS into listeners, routes
// and connections. ARCHITECTURE.md is the map. This package holds no code but the
// tests that keep the tree in order.
package lateen
