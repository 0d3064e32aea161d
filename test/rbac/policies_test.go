package rbac

import (
	"fmt"
	"math/rand/v2"
)

// A chooser makes policies and requests at random, of words that meet often.
type chooser struct{ *rand.Rand }

type object = map[string]any

func (c chooser) of(words ...string) string { return words[c.IntN(len(words))] }

var (
	paths = []string{
		"/", "/a", "/a/", "/a/b", "/A/b", "/a/b/c", "/a//b", "//a", "/a/./b", "/a/../b", "/../a", "/a/..", "/a%2fb", "/a%2Fb", "/a%5cb", "/a%2e%2e/b",
		"/a;x=1", "/a;/b", "/a/b;v=2/c", "/%61", "/a%20b", "/a?b", "/a/b?x=/a", "/?a", "/a/b?", "/a\\b", "/%", "/%zz", "/~a", "/a/b/c/d/e", "/admin", "/Admin", "/admin/x",
	}
	texts     = []string{"", "a", "b", "A", "ab", "abc", "1", "17", "x y", "a,b", "ä"}
	hosts     = []string{"a.test", "A.test", "a.test:80", "b.test", "xn--a.test"}
	addresses = []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.1.0.1", "192.0.2.1", "192.0.2.200", "203.0.113.7", "2001:db8::1", "::ffff:192.0.2.1"}
	methods   = []string{"GET", "POST", "PUT", "DELETE", "OPTIONS", "get"}
	names     = []string{"spiffe://a/ns/x", "spiffe://b/ns/y", "peer.test", "other.test", "CN=peer", ""}
	headers   = []string{"x-a", "x-b", "X-A", "cookie", "user-agent", "accept", "authorization"}
)

// config is a random RBAC of a route.
func (c chooser) config() object {
	out := object{}
	if c.IntN(10) > 0 {
		out["rules"] = c.rules()
	}
	if c.IntN(4) == 0 {
		out["shadow_rules"] = c.rules()
	}
	if c.IntN(4) == 0 {
		out["rules_stat_prefix"] = c.of("p", "p_", "p.")
	}
	return out
}

func (c chooser) rules() object {
	policies := object{}
	for range c.IntN(4) {
		policies[c.of("a", "b", "B", "a b", "z", "ns[x]-policy[y]-rule[0]")] = object{"permissions": c.some(2, c.permission), "principals": c.some(2, c.principal)}
	}
	return object{"action": c.of("ALLOW", "DENY", "ALLOW", "DENY", "LOG"), "policies": policies}
}

// some is a list of one thing or more, each of which may hold others.
func (c chooser) some(depth int, make func(depth int) object) (list []object) {
	for range 1 + c.IntN(3) {
		list = append(list, make(depth))
	}
	return list
}

func (c chooser) permission(depth int) object {
	switch n := c.IntN(13); {
	case n == 0 && depth > 0:
		return object{"and_rules": object{"rules": c.some(depth-1, c.permission)}}
	case n == 1 && depth > 0:
		return object{"or_rules": object{"rules": c.some(depth-1, c.permission)}}
	case n == 2 && depth > 0:
		return object{"not_rule": c.permission(depth - 1)}
	case n == 3:
		return object{"any": true}
	case n < 7:
		return object{"header": c.header()}
	case n == 7:
		return object{"destination_ip": c.ranges()}
	case n == 8:
		return object{"destination_port_range": []object{{"start": 0, "end": 65536}, {"start": 1, "end": 20000}}[c.IntN(2)]} // peers have ports of their own, above
	case n == 9:
		return object{"requested_server_name": c.text(hosts)}
	case n == 10:
		return c.metadata()
	case n == 11:
		return object{"uri_template": object{"name": "envoy.path.match.uri_template.uri_template_matcher", "typed_config": object{
			"@type":         "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
			"path_template": c.of("/*", "/**", "/a/*", "/{x}/b", "/a/{x=**}", "/a", "/a/{x}/c")}}}
	}
	return object{"url_path": object{"path": c.text(paths)}}
}

func (c chooser) principal(depth int) object {
	switch n := c.IntN(13); {
	case n == 0 && depth > 0:
		return object{"and_ids": object{"ids": c.some(depth-1, c.principal)}}
	case n == 1 && depth > 0:
		return object{"or_ids": object{"ids": c.some(depth-1, c.principal)}}
	case n == 2 && depth > 0:
		return object{"not_id": c.principal(depth - 1)}
	case n == 3:
		return object{"any": true}
	case n == 4:
		return object{"authenticated": object{}}
	case n == 5:
		return object{"authenticated": object{"principal_name": c.text(names)}}
	case n == 6:
		return object{c.of("source_ip", "direct_remote_ip"): c.ranges()}
	case n == 7:
		return object{"remote_ip": c.ranges()}
	case n == 8:
		return object{"filter_state": object{"key": c.of("test.state", "test.none"), "string_match": c.text([]string{"on", "on a.test", "off"})}}
	case n == 9:
		return c.metadata()
	case n == 10:
		return object{"url_path": object{"path": c.text(paths)}}
	}
	return object{"header": c.header()}
}

// metadata asks for what set_metadata or the route have.
func (c chooser) metadata() object {
	value := []object{
		{"string_match": c.text(texts)}, {"present_match": true}, {"double_match": object{"range": object{"start": 1, "end": 5}}}, {"bool_match": c.IntN(2) == 0},
		{"list_match": object{"one_of": object{"string_match": c.text(texts)}}}, {"null_match": object{}},
	}[c.IntN(6)]
	m := object{"filter": c.of("m", "m", "r", "none"), "path": []object{{"key": c.of("text", "number", "flag", "list", "null", "none")}}, "value": value}
	if c.IntN(4) == 0 {
		m["invert"] = true
	}
	if c.IntN(2) == 0 {
		return object{"metadata": m}
	}
	return object{"sourced_metadata": object{"metadata_matcher": m, "metadata_source": c.of("DYNAMIC", "ROUTE")}}
}

func (c chooser) ranges() object {
	a := addresses[c.IntN(8)] // but the mapped one
	bits := 32
	if a[0] == '2' && a[3] == '1' {
		bits = 128
	}
	return object{"address_prefix": a, "prefix_len": c.IntN(bits + 1)}
}

// header asks for one of a header's values, its presence, or a pseudo header.
func (c chooser) header() object {
	h := object{"name": c.of(headers...)}
	switch c.IntN(9) {
	case 0:
		h["present_match"] = c.IntN(2) == 0
	case 1:
		h["range_match"] = object{"start": c.IntN(3), "end": 3 + c.IntN(20)}
	case 2:
		h["name"], h["string_match"] = ":method", c.text(methods)
	case 3:
		h["name"], h["string_match"] = ":path", c.text(paths)
	case 4:
		h["name"], h["string_match"] = c.of(":authority", "host"), c.text(hosts)
	default:
		h["string_match"] = c.text(texts)
	}
	if c.IntN(5) == 0 {
		h["invert_match"] = true
	}
	if c.IntN(5) == 0 {
		h["treat_missing_header_as_empty"] = true
	}
	return h
}

// text wants one of words, or a part of it.
func (c chooser) text(words []string) object {
	w := words[c.IntN(len(words))]
	kind := c.of("exact", "prefix", "suffix", "contains", "safe_regex", "exact")
	from := 0
	if len(w) > 1 && kind != "exact" && w[0] < 0x80 && w[1] < 0x80 {
		from = c.IntN(2)
	}
	switch kind {
	case "prefix":
		w = w[:len(w)-from]
	case "suffix", "contains":
		w = w[from:]
	case "safe_regex":
		return object{"safe_regex": object{"regex": c.of(".*", "[a-c/]+", ".*a.*", "/a(/.*)?", "[^/]*", "(?i)/A.*", "spiffe://.*", "\\d+", "/[^?]*")}}
	}
	if w == "" {
		kind = "exact"
	}
	m := object{kind: w}
	if c.IntN(4) == 0 {
		m["ignore_case"] = true
	}
	return m
}

// request is a random request that asks for the policies of a route.
func (c chooser) request(route int) string {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nhost: %s\r\nx-route: %d\r\n", c.of(methods...), c.of(paths...), c.of(hosts...), route)
	for range c.IntN(4) {
		head += c.of(headers...) + ": " + c.of(texts...) + "\r\n"
	}
	if c.IntN(2) == 0 {
		head += "x-forwarded-for: " + c.of(addresses...)
		if c.IntN(3) == 0 {
			head += ", " + c.of(addresses...)
		}
		head += "\r\n"
	}
	return head + "content-length: 0\r\n\r\n"
}
