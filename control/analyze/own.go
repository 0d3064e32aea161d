package analyze

// The codes of messages that are not Istio's.
const (
	RuleNeverMatches            Code = "LAT0001"
	DestinationWithoutEndpoints Code = "LAT0002"
	CertificateHostMismatch     Code = "LAT0003"
	CertificateOutOfTime        Code = "LAT0004"
	CertificateKeyMismatch      Code = "LAT0005"
	ClientCANotFound            Code = "LAT0006"
)

// ownDefinitions are the codes that are not Istio's. Their messages begin with the field
// and end with what to do.
func ownDefinitions() []definition {
	return []definition{
		{RuleNeverMatches, "RuleNeverMatches", Warning,
			"%s never matches: %s. Move the narrower one to the front, or remove it.",
			[]string{"field: string", "why: string"}},
		{DestinationWithoutEndpoints, "DestinationWithoutEndpoints", Warning,
			"%s: requests to %s go nowhere: %s. %s",
			[]string{"field: string", "host: string", "reason: string", "fix: string"}},
		{CertificateHostMismatch, "CertificateHostMismatch", Warning,
			"%s: no certificate of %s is for the host %q, but for %s: clients refuse it. Use a certificate with that name, or give the host a server of its own.",
			[]string{"field: string", "credential: string", "host: string", "names: string"}},
		{CertificateOutOfTime, "CertificateOutOfTime", Error,
			"%s: the certificate of %s %s: clients refuse it. Replace it with one that is valid now.",
			[]string{"field: string", "credential: string", "when: string"}},
		{CertificateKeyMismatch, "CertificateKeyMismatch", Error,
			"%s: %s and %s are no pair of certificate and key: %s. Give the key with which the certificate was requested.",
			[]string{"field: string", "certificate: string", "key: string", "why: string"}},
		{ClientCANotFound, "ClientCANotFound", Error,
			"%s: mode %s has nothing to verify clients with: neither ca.crt or cacert in the secret %s nor a secret %s. Add one of them, or use mode SIMPLE.",
			[]string{"field: string", "mode: string", "secret: string", "second: string"}},
	}
}

// defined is the definition of a code, nil if there is none.
func defined(code Code) *definition {
	for _, all := range [][]definition{definitions(), ownDefinitions()} {
		for i := range all {
			if all[i].code == code {
				return &all[i]
			}
		}
	}
	return nil
}
