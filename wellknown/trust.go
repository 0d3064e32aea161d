package wellknown

// ProxyConfigType is the type of the one resource, a ProxyConfig of istio.mesh.v1alpha1, by which
// the control plane tells agents the roots that the mesh trusts (PCDS). An agent of ours
// acknowledges it when its proxy has taken them, and has a certificate that leads to the root of
// [SignerKey].
const ProxyConfigType = "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig"

// SignerKey is the key in that resource's proxy_metadata with the fingerprint of the root to
// which certificates lead that the control plane issues now (spiffe.Fingerprint). Agents whose
// certificate leads to another root of the resource have a new one signed.
const SignerKey = "LATEEN_SIGNER"
