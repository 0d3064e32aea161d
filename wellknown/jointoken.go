package wellknown

// JoinTokenPrefix begins the tokens by which machines get their first certificate. They are good
// once: an agent that has a certificate shows that one in their place.
const JoinTokenPrefix = "lateen-join-"
