package jwt

import (
	"fmt"
	"strings"
)

// filters are the configurations that are compared, a listener each: many providers and
// trees of requirements, a single provider, and one whose denials have no body.
func filters(k *keychain) []string {
	indent := func(text string) string { return "              " + strings.ReplaceAll(text, "\n", "\n              ") }
	return []string{
		indent(fmt.Sprintf(manyProviders, k.set("rsa1", "rsa2"), k.set("ec256", "ec384", "ec521"), k.set("oct"), k.set("ed"), k.loose())),
		indent(fmt.Sprintf(singleProvider, k.loose())),
		indent(fmt.Sprintf(strippedProvider, k.set("rsa1", "ec256"))),
	}
}

const manyProviders = `providers:
  rs:
    issuer: iss-rs
    local_jwks: {inline_string: '%s'}
    forward_payload_header: x-payload
  es:
    issuer: iss-es
    audiences: [aud1, "https://aud2/", "http://aud3"]
    local_jwks: {inline_string: '%s'}
    from_headers: [{name: x-tok}, {name: X-Pre, value_prefix: "Pre "}]
    from_params: [tok, "to~k"]
    forward: true
    forward_payload_header: X-Payload-Padded
    pad_forward_payload_header: true
    payload_in_metadata: payload
    header_in_metadata: header
    claim_to_headers:
    - {header_name: x-claim-sub, claim_name: sub}
    - {header_name: x-claim-nested, claim_name: n.m}
    - {header_name: x-claim-path, claim_path: [{key: a.b}, {key: c}]}
    - {header_name: x-claim-list, claim_name: list}
    - {header_name: x-claim-num, claim_name: num}
    - {header_name: x-claim-iss, claim_name: iss}
  hs:
    issuer: iss-hs
    local_jwks: {inline_string: '%s'}
    from_headers: [{name: authorization, value_prefix: "Bearer "}, {name: x-tok, value_prefix: "T "}]
    from_cookies: [ck, other]
    payload_in_metadata: payload
    normalize_payload_in_metadata: {space_delimited_claims: [scope, sub]}
    claim_to_headers: [{header_name: x-claim-sub, claim_name: sub}]
    clear_route_cache: true
  ed:
    local_jwks: {inline_string: '%s'}
    from_params: [ed]
    from_headers: [{name: authorization, value_prefix: "Bearer "}]
    failed_status_in_metadata: failure
    clock_skew_seconds: 1000
  loose:
    issuer: iss-loose
    local_jwks: {inline_string: '%s'}
    subjects: {prefix: adm}
    max_lifetime: 7200s
    failed_status_in_metadata: failure
    jwt_cache_config: {jwt_cache_size: 3}
    payload_in_metadata: payload
    clear_route_cache: true
  bad:
    issuer: iss-bad
    local_jwks: {inline_string: ''}
    from_headers: [{name: x-bad}]
  fetched:
    issuer: iss-fetched
    remote_jwks: {http_uri: {uri: "http://issuer.test/keys", cluster: issuer, timeout: 5s}, cache_duration: 600s}
    from_headers: [{name: x-fetched}]
    require_expiration: true
  ahead:
    issuer: iss-ahead
    remote_jwks: {http_uri: {uri: "http://issuer.test/keys", cluster: issuer, timeout: 5s}, async_fetch: {}}
    from_headers: [{name: x-ahead}]
  lost:
    issuer: iss-lost
    remote_jwks: {http_uri: {uri: "http://issuer.test/nothing", cluster: issuer, timeout: 5s}}
    from_headers: [{name: x-lost}]
requirement_map:
  named: {requires_any: {requirements: [{provider_name: rs}, {provider_name: loose}]}}
  second: {provider_name: hs}
bypass_cors_preflight: true
rules:
- match: {path: /rs}
  requires: {provider_name: rs}
- match: {prefix: /es/q, query_parameters: [{name: z, string_match: {exact: "1"}}]}
  requires: {provider_name: hs}
- match: {path_separated_prefix: /es}
  requires: {provider_name: es}
- match: {safe_regex: {regex: "/h.?"}}
  requires: {provider_name: hs}
- match: {prefix: /ED, case_sensitive: false}
  requires: {provider_name: ed}
- match: {prefix: /loose}
  requires: {provider_name: loose}
- match: {prefix: /aud}
  requires: {provider_and_audiences: {provider_name: rs, audiences: [aud1, "https://aud9"]}}
- match: {prefix: /bad}
  requires: {provider_name: bad}
- match: {prefix: /fetched}
  requires: {provider_name: fetched}
- match: {prefix: /ahead}
  requires: {provider_name: ahead}
- match: {prefix: /lost}
  requires: {provider_name: lost}
- match: {prefix: /anymiss}
  requires: {requires_any: {requirements: [{provider_name: es}, {provider_name: rs}, {allow_missing: {}}]}}
- match: {prefix: /any}
  requires: {requires_any: {requirements: [{provider_name: rs}, {provider_name: es}, {provider_name: hs}]}}
- match: {prefix: /all}
  requires: {requires_all: {requirements: [{provider_name: rs}, {provider_name: es}]}}
- match: {prefix: /fail}
  requires: {requires_any: {requirements: [{provider_name: es}, {provider_name: hs}, {allow_missing_or_failed: {}}]}}
- match: {prefix: /nest}
  requires: {requires_all: {requirements: [{requires_any: {requirements: [{provider_name: rs}, {provider_name: hs}]}}, {requires_any: {requirements: [{provider_name: es}, {allow_missing: {}}]}}]}}
- match: {prefix: /opt}
  requires: {allow_missing: {}}
- match: {prefix: /lax}
  requires: {allow_missing_or_failed: {}}
- match: {prefix: /both}
  requires: {requires_any: {requirements: [{allow_missing: {}}, {allow_missing: {}}]}}
- match: {prefix: /second, headers: [{name: x-second, present_match: true}]}
  requirement_name: second
- match: {prefix: /free}
- match: {prefix: /unset}
  requires: {}
`

const singleProvider = `providers:
  only:
    issuer: iss-loose
    audiences: [aud1]
    local_jwks: {inline_string: '%s'}
    failed_status_in_metadata: failure
    payload_in_metadata: payload
    claim_to_headers:
    - {header_name: x-claim-sub, claim_name: sub}
    - {header_name: x-claim-num, claim_name: num}
    - {header_name: x-claim-list, claim_name: list}
    clear_route_cache: true
rules:
- match: {prefix: /opt}
  requires: {allow_missing: {}}
- match: {prefix: /}
  requires: {provider_name: only}
`

const strippedProvider = `providers:
  only:
    local_jwks: {inline_string: '%s'}
    jwt_cache_config: {}
    forward_payload_header: x-payload
strip_failure_response: true
stat_prefix: own
requirement_map:
  named: {provider_name: only}
rules:
- match: {prefix: /}
  requires: {provider_name: only}
`

// paths lead to the rules, to none, and to routes with rules of their own.
var paths = []string{
	"/rs", "/es", "/es/q", "/h", "/hs", "/ed/x", "/loose", "/aud", "/bad", "/fetched", "/ahead", "/lost", "/any", "/all", "/anymiss", "/fail", "/nest",
	"/opt", "/lax", "/both", "/second", "/free", "/unset", "/other", "/off", "/named", "/misnamed", "/es/" + strings.Repeat("long/", 60),
}
