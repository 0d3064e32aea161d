package mesh

import "github.com/lateen-mesh/lateen/wellknown"

// IsGRPC reports whether it is no proxy but a gRPC program that speaks xDS itself.
func (p *Proxy) IsGRPC() bool { return p.text("GENERATOR") == wellknown.GRPCGenerator }
