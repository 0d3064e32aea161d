package mesh

import "slices"

// Trust is by which roots workloads know each other. It is not changed.
type Trust struct {
	Roots  []string // PEM, of one or several certificates each; the mesh's own authority first
	Signer string   // fingerprint of the root that certificates lead to that are issued now; "" without authority
	Since  uint64   // generation of the first Snapshot with it
}

// Same reports whether workloads are told the same.
func (t Trust) Same(other Trust) bool {
	return t.Signer == other.Signer && slices.Equal(t.Roots, other.Roots)
}
