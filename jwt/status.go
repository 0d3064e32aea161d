package jwt

import "strconv"

// A Status is what is said of a token. Numbers and texts are Envoy's: clients read the
// text, and failed_status_in_metadata holds both.
type Status uint8

// The statuses that tokens can have.
const (
	OK                   Status = 0
	Missing              Status = 1
	NotYetValid          Status = 2
	Expired              Status = 3
	BadForm              Status = 4
	BadHeaderBase64      Status = 5
	BadHeaderJSON        Status = 6
	BadAlgorithm         Status = 7
	UnsupportedAlgorithm Status = 8
	BadKeyID             Status = 9
	BadPayloadBase64     Status = 10
	BadPayloadJSON       Status = 11
	BadIssuer            Status = 12
	BadSubject           Status = 13
	BadIssuedAt          Status = 14
	IssuedAtRange        Status = 15
	BadNotBefore         Status = 16
	NotBeforeRange       Status = 17
	BadExpiration        Status = 18
	ExpirationRange      Status = 19
	BadID                Status = 20
	BadAudience          Status = 21
	BadSignatureBase64   Status = 22
	SignatureLength      Status = 23 // of Ed25519
	UnknownIssuer        Status = 24
	AudienceNotAllowed   Status = 25
	VerificationFails    Status = 26
	NoValidKeys          Status = 31
	NoKeyMatches         Status = 32
	FetchFailed          Status = 40
)

var texts = map[Status]string{
	OK:                   "OK",
	Missing:              "Jwt is missing",
	NotYetValid:          "Jwt not yet valid",
	Expired:              "Jwt is expired",
	BadForm:              "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
	BadHeaderBase64:      "Jwt header is an invalid Base64url encoded",
	BadHeaderJSON:        "Jwt header is an invalid JSON",
	BadAlgorithm:         "Jwt header [alg] field is required and must be a string",
	UnsupportedAlgorithm: "Jwt header [alg] is not supported",
	BadKeyID:             "Jwt header [kid] field is not a string",
	BadPayloadBase64:     "Jwt payload is an invalid Base64url encoded",
	BadPayloadJSON:       "Jwt payload is an invalid JSON",
	BadIssuer:            "Jwt payload [iss] field is not a string",
	BadSubject:           "Jwt payload [sub] field is not a string",
	BadIssuedAt:          "Jwt payload [iat] field is not an integer",
	IssuedAtRange:        "Jwt payload [iat] field is not a positive 64 bit integer",
	BadNotBefore:         "Jwt payload [nbf] field is not an integer",
	NotBeforeRange:       "Jwt payload [nbf] field is not a positive 64 bit integer",
	BadExpiration:        "Jwt payload [exp] field is not an integer",
	ExpirationRange:      "Jwt payload [exp] field is not a positive 64 bit integer",
	BadID:                "Jwt payload [jti] field is not a string",
	BadAudience:          "Jwt payload [aud] field is not a string or string list",
	BadSignatureBase64:   "Jwt signature is an invalid Base64url encoded",
	SignatureLength:      "Jwt ED25519 signature is wrong length",
	UnknownIssuer:        "Jwt issuer is not configured",
	AudienceNotAllowed:   "Audiences in Jwt are not allowed",
	VerificationFails:    "Jwt verification fails",
	NoValidKeys:          "Jwks doesn't have any valid public key",
	NoKeyMatches:         "Jwks doesn't have key to match kid or alg from Jwt",
	FetchFailed:          "Jwks remote fetch is failed",
}

// String is the text that clients read.
func (s Status) String() string {
	if text, ok := texts[s]; ok {
		return text
	}
	return "status " + strconv.Itoa(int(s))
}
