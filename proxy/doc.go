// Package proxy is the data plane: it starts from an Envoy v3 bootstrap, talks xDS
// and serves what that says.
//
// Load reads the bootstrap, ParseArgs the command line, Run is the proxy's life:
// static clusters, the management server's clusters with their endpoints, then
// listeners with their routes and secrets, and when the first of all these are in
// force the workers start and /ready says LIVE. filters.go lists, in order, what
// filters exist; server.go is the only place where the parts learn of each other.
//
// Whoever ends Run's context drains: listeners close, connections are told to finish
// and are cut after the drain time. Options.Stop ends it at once.
package proxy
