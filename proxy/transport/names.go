package transport

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strconv"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/lateen-mesh/lateen/proxy/match"
)

// The tags of subject alternative names (RFC 5280, 4.2.1.6).
const (
	tagOther = 0
	tagEmail = 1
	tagDNS   = 2
	tagURI   = 6
	tagIP    = 7
)

// eachName calls f for the subject alternative names in the order of the extension, which
// x509.Certificate does not keep.
func eachName(leaf *x509.Certificate, f func(tag int, value []byte)) {
	for _, ext := range leaf.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		var all asn1.RawValue
		if _, err := asn1.Unmarshal(ext.Value, &all); err != nil {
			return
		}
		for rest := all.Bytes; len(rest) > 0; {
			var one asn1.RawValue
			var err error
			if rest, err = asn1.Unmarshal(rest, &one); err != nil {
				return
			}
			f(one.Tag, one.Bytes)
		}
	}
}

// names are those that Envoy prints.
func names(leaf *x509.Certificate) (list []string) {
	eachName(leaf, func(tag int, value []byte) {
		switch tag {
		case tagEmail, tagDNS, tagURI:
			list = append(list, string(value))
		case tagIP:
			list = append(list, net.IP(value).String())
		}
	})
	return list
}

// A sanMatcher matches subject alternative names of one type, or of any.
type sanMatcher struct {
	kind  tlsv3.SubjectAltNameMatcher_SanType
	text  match.String
	exact string // of DNS: wildcard certificates match it too
	oid   asn1.ObjectIdentifier
}

func compileSAN(kind tlsv3.SubjectAltNameMatcher_SanType, m *matcherv3.StringMatcher, oid string) (sanMatcher, error) {
	s := sanMatcher{kind: kind, exact: m.GetExact()}
	if kind == tlsv3.SubjectAltNameMatcher_OTHER_NAME {
		if oid == "" {
			return s, errors.New("oid: required for san_type OTHER_NAME")
		}
		for part := range strings.SplitSeq(oid, ".") {
			n, err := strconv.Atoi(part)
			if err != nil || n < 0 {
				return s, fmt.Errorf("oid: %q is not an object identifier", oid)
			}
			s.oid = append(s.oid, n)
		}
	}
	var err error
	s.text, err = match.NewString(m)
	return s, err
}

// only is v with the DNS name of the server in the place of all configured names.
func (v *validation) only(name string) *validation {
	var out validation
	if v != nil {
		out = *v
	}
	exact := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}}
	s, _ := compileSAN(tlsv3.SubjectAltNameMatcher_DNS, exact, "") // an exact text always compiles
	out.sans = []sanMatcher{s}
	return &out
}

func matchSAN(matchers []sanMatcher, leaf *x509.Certificate) bool {
	for i := range matchers {
		if matchers[i].matches(leaf) {
			return true
		}
	}
	return false
}

func (m *sanMatcher) matches(leaf *x509.Certificate) (found bool) {
	every := m.kind == tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED
	is := func(kind tlsv3.SubjectAltNameMatcher_SanType) bool { return every || m.kind == kind }
	eachName(leaf, func(tag int, value []byte) {
		switch {
		case found:
		case tag == tagDNS && is(tlsv3.SubjectAltNameMatcher_DNS):
			found = m.text.Match(value) || m.exact != "" && wildcardMatch(string(value), m.exact)
		case tag == tagURI && is(tlsv3.SubjectAltNameMatcher_URI), tag == tagEmail && is(tlsv3.SubjectAltNameMatcher_EMAIL):
			found = m.text.Match(value)
		case tag == tagIP && is(tlsv3.SubjectAltNameMatcher_IP_ADDRESS):
			found = m.text.Match([]byte(net.IP(value).String()))
		case tag == tagOther && m.kind == tlsv3.SubjectAltNameMatcher_OTHER_NAME:
			found = m.other(value)
		}
	})
	return found
}

// other matches an otherName: an object identifier and a value, which is compared as text.
func (m *sanMatcher) other(der []byte) bool {
	var oid asn1.ObjectIdentifier
	rest, err := asn1.Unmarshal(der, &oid)
	if err != nil || !oid.Equal(m.oid) {
		return false
	}
	var outer, value asn1.RawValue
	if _, err := asn1.Unmarshal(rest, &outer); err != nil {
		return false
	}
	if _, err := asn1.Unmarshal(outer.Bytes, &value); err != nil {
		return false
	}
	text, ok := asText(&value)
	return ok && m.text.Match(text)
}

// asText is the form in which a value of an otherName is compared.
func asText(v *asn1.RawValue) ([]byte, bool) {
	if v.Class != asn1.ClassUniversal {
		return nil, false
	}
	switch v.Tag {
	case asn1.TagOID:
		var oid asn1.ObjectIdentifier
		_, err := asn1.Unmarshal(v.FullBytes, &oid)
		return []byte(oid.String()), err == nil
	case asn1.TagBoolean:
		return strconv.AppendBool(nil, len(v.Bytes) == 1 && v.Bytes[0] != 0), true
	case asn1.TagInteger, asn1.TagEnum:
		n := new(big.Int).SetBytes(v.Bytes)
		if len(v.Bytes) > 0 && v.Bytes[0]&0x80 != 0 { // two's complement
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(v.Bytes))))
		}
		return []byte(n.String()), true
	case asn1.TagNull:
		return nil, true
	}
	return v.Bytes, true
}

// wildcardMatch reports whether a certificate's "*.example.com" covers name.
func wildcardMatch(pattern, name string) bool {
	suffix, ok := strings.CutPrefix(pattern, "*")
	if !ok || !strings.HasPrefix(suffix, ".") {
		return false
	}
	label, ok := strings.CutSuffix(strings.ToLower(name), strings.ToLower(suffix))
	return ok && label != "" && !strings.Contains(label, ".")
}
