// Package ir holds what the control plane decided for one proxy: listeners,
// routes, clusters, endpoints and secrets as plain values. It stands between
// package compile, which makes the decisions from the mesh, and package envoy,
// which spells them as Envoy resources.
//
// Values hold decisions, not syntax: a Cluster says "least request, panic mode
// off", not which field of which message says so. They import the standard
// library only, are never changed once they are passed on, and compare by value,
// so that the hash of a value is a key for what is made from it.
package ir
