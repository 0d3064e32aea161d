// Package compile decides what one proxy gets: it turns a mesh.Snapshot, seen
// through the proxy's mesh.Scope, into values of package ir.
//
// There is one file for each concern. Clusters lists what the proxy may call (and, for
// a sidecar, what it serves), Endpoints gives the addresses behind one cluster,
// Secret the certificate behind one SDS name; listeners and routes refer to
// clusters and secrets by name only. All functions are pure: the same snapshot
// and proxy give the same values in the same order, and nothing is kept between
// calls. An object that cannot be compiled harms only what is made from it.
package compile
