// Package ads serves the Aggregated Discovery Service of xDS v3, in both protocol
// forms: state of the world and incremental ("delta").
//
// A Server holds one conn per stream. A conn is the goroutine of its stream: it
// takes requests and pushes in turn, asks its View for the resources of a type,
// compares them by content with what the proxy was told and sends the difference.
// What resources there are, and which types a Change can reach, is handed in
// (Options); the package knows of the mesh only the proxy's identity.
//
//	Push(Change) ─► conn: pending change (at most one, merged) ─┐
//	stream ─► request ─► watch: subscription, ACK, NACK ────────┴─► advance:
//	    CDS, EDS, gate, LDS, RDS, SDS, … , sweep ─► response
//
// Rules that hold:
//
//   - A resource's version is the hash of its content, so it survives a restart of
//     the control plane. What the proxy has is not sent again; a reconnecting
//     proxy's initial_resource_versions (state of the world: version_info) count.
//   - A refused (NACKed) version of a resource is not sent again on that stream; the
//     proxy is taken to keep the version before, until it acknowledges the last response
//     after all (delta). When the error names none of the
//     response's resources they go again one by one, so that the next one does.
//   - Make before break: LDS and RDS wait until a CDS response that brought new
//     clusters is acknowledged (an Envoy does so when they are warm), at most
//     gateTime; clusters that nobody needs any more leave in a CDS response of
//     their own after LDS and RDS are acknowledged, at most sweepTime later.
//   - A gRPC program that speaks xDS itself gets new routes when it has taken the clusters that
//     are new in them (ahead.go), at most aheadTime later.
//   - A changed cluster's endpoints follow it even when they are the same: an Envoy
//     warms the new cluster from scratch and waits for them.
//   - A subscription to a name that does not exist is answered: removed_resources in
//     the delta form, a response without it in the other.
//   - Virtual hosts are routes as well. A proxy that takes them as resources of their own
//     (wellknown.HostsFeature, delta form) is known to the View by mesh.Proxy.HostsApart.
//   - A proxy that asks for wellknown.DrainType says that it is about to end. It is answered
//     when Options.Leave has seen to it that nobody sends to it any more.
//   - A change that says what it is about (Change.Subjects) has each watch look at the names of
//     that alone.
//   - Everything is bounded: pending pushes, names per watch, unknown types, unanswered
//     responses that are remembered. A slow proxy blocks its own goroutine only, and has what
//     it is sent in common with all others (ServerOption).
//
// The package opens no socket and authenticates nobody; package control does.
package ads

import (
	"slices"
)

// A Type is one kind of xDS resource that the server offers.
type Type struct {
	URL  string
	Name string // "CDS": what logs say; metrics say it in lower case
	// Wildcard types answer a first subscription without names with everything,
	// and their state-of-the-world responses hold the whole set.
	Wildcard bool
	// Reads are the kinds of object, as in "kind:" of YAML, whose change can change a
	// resource of the type.
	Reads []string
	// Subject tells by a resource's name what it is about, so that a Change of that alone
	// reaches it alone. Nil: any change that reaches the type may be about any of its
	// resources.
	Subject func(name string) string
	// Nested types are subscribed to by the name that stands before the "/" in the names of
	// their resources (VHDS): all below it is meant. One resource can be asked for as well.
	Nested bool
}

// A Change says what a new generation of the mesh differs in.
type Change struct {
	Kinds []string // kinds with changed objects
	All   bool     // anything may have changed (mesh config, the first generation)
	// Subjects are what resources of types with a Subject differ about, beside all that
	// the kinds reach.
	Subjects []string
}

// Reaches reports whether the change can alter any resource of the type, whatever that is
// about.
func (c Change) Reaches(t Type) bool {
	return c.All || slices.ContainsFunc(c.Kinds, func(k string) bool { return slices.Contains(t.Reads, k) })
}

// reach is the set of types, a bit per index, that the change can alter.
func (c Change) reach(types []Type) uint64 {
	var set uint64
	for i, t := range types {
		if c.Reaches(t) {
			set |= 1 << i
		}
	}
	return set
}

// A View is the mesh as one proxy sees it at one generation. It is used by one
// goroutine at a time.
type View interface {
	// Generation is that of the snapshot behind the view.
	Generation() uint64
	// Key stays the same from view to view for as long as what the mesh knows of the
	// proxy itself does. A Change speaks of all else only.
	Key() string
	// Resources returns the resources of a type: those of the given names that
	// exist, or every one where names is nil. On an error nothing of the type is
	// sent and what the proxy has stays. The very slice that it returned before says
	// that nothing differs.
	Resources(typeURL string, names []string) ([]Resource, error)
}
