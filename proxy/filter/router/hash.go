package router

import (
	"bytes"
	"fmt"
	"math/bits"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/route"
)

// hash computes what hash policies take from the request for ring hash and maglev.
func (k *call) hash() {
	for i := range k.forward.HashPolicy {
		p := &k.forward.HashPolicy[i]
		h, ok := k.hashOf(p)
		if !ok {
			continue
		}
		k.lb.Hash = bits.RotateLeft64(k.lb.Hash, 1) ^ h
		k.lb.HasHash = true
		if p.Terminal {
			return
		}
	}
}

func (k *call) hashOf(p *route.HashPolicy) (uint64, bool) {
	s := k.s
	switch {
	case p.Header != "":
		return hashHeader(&s.Request, p.Header)
	case p.Cookie != "":
		return k.hashCookie(p)
	case p.Query != "":
		_, query := match.SplitPath(s.Request.Path)
		v, ok := match.Parameter(query, p.Query)
		return xxhash.Sum64(v), ok
	case p.SourceIP:
		a := s.Info.DownstreamRemote.Addr()
		return xxhash.Sum64(a.AppendTo(s.Scratch()[len(s.Scratch()):])), a.IsValid()
	}
	return 0, false
}

// hashHeader chains the hashes of a header's values in alphabetical order, so that the
// order in which they came does not matter.
func hashHeader(r *http.Request, name string) (uint64, bool) {
	v, ok := r.First(name)
	if _, more := r.Value(name, 1); !more {
		return xxhash.Sum64(v), ok
	}
	var values [][]byte
	for i := 0; ok; i++ {
		if v, ok = r.Value(name, i); ok {
			values = append(values, v)
		}
	}
	slices.SortFunc(values, bytes.Compare)
	var h uint64
	for _, v := range values {
		d := xxhash.NewWithSeed(h)
		_, _ = d.Write(v) // a hash never fails
		h = d.Sum64()
	}
	return h, true
}

// hashCookie takes the cookie, or makes one where the policy has a ttl.
func (k *call) hashCookie(p *route.HashPolicy) (uint64, bool) {
	if v := cookie(&k.s.Request.Headers, p.Cookie); len(v) > 0 {
		return xxhash.Sum64(v), true
	}
	if !p.CookieTTLSet {
		return 0, false
	}
	i := &k.s.Info
	value := fmt.Appendf(nil, "%016x", xxhash.Sum64String(i.DownstreamDirectRemote.String()+i.DownstreamDirectLocal.String()))
	c := append(append([]byte(p.Cookie), `="`...), value...)
	c = append(c, '"')
	if p.CookieTTL > 0 {
		c = strconv.AppendInt(append(c, "; Max-Age="...), int64(p.CookieTTL.Seconds()), 10)
	}
	if p.CookiePath != "" {
		c = append(append(c, "; Path="...), p.CookiePath...)
	}
	c = append(c, p.CookieAttributes...)
	k.cookie = append(c, "; HttpOnly"...)
	return xxhash.Sum64(value), true
}

// cookie returns the value of a cookie.
func cookie(h *http.Headers, name string) []byte {
	for _, f := range h.Fields {
		if !http.EqualFold(f.Name, "cookie") {
			continue
		}
		for rest := f.Value; len(rest) > 0; {
			var one []byte
			one, rest, _ = bytes.Cut(rest, []byte(";"))
			n, v, _ := bytes.Cut(bytes.TrimSpace(one), []byte("="))
			if string(n) == name {
				return bytes.Trim(v, `"`)
			}
		}
	}
	return nil
}
