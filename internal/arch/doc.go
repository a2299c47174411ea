// Package arch holds no code: its test walks the source of the whole repository
// and fails where the house rules are broken that a compiler does not know.
//
//	who may import whom · the clock is passed in · SQL does not tell the time
//	domain rooms serve no HTTP · every package says what it is for
//
// The test reads the files itself and counts what it read: a guard that looks at
// nothing would always be content.
package arch
