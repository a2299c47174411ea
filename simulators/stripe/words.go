package stripe

// words are the texts of the card page in one language.
type words struct {
	Lang                                             string // en, fr
	Mark, Order, Total, PayWith, Debit, Back, Return string
	Email, Number, Expiry, ExpiryHint, CVC, Name     string
	Institution, Transit, Account, Pay, DebitNote    string
	Hints, AnyExpiry, Outcome                        string
	ChallengeTitle, ChallengeText                    string
	ChallengeComplete, ChallengeFail, ChallengeShown string
	PaidTitle, PaidText, ExpiredTitle, ExpiredText   string
	NoneTitle, NoneText, CheckFields                 string
	Wrong                                            map[string]string // field → what is wrong with it
	Declined                                         map[string]string // decline code → what to do; "" for the rest
	Means                                            map[string]string // hint of a test card → what it does
	Accounts                                         map[string]string // test account → what it does
}

var english = words{
	Lang: "en", Mark: "simulator", Order: "Your payment", Total: "Total", PayWith: "Pay by card", Debit: "Pay by pre-authorized debit instead", Back: "Back", Return: "Return to the merchant",
	Email: "Email", Number: "Card number", Expiry: "Expiry", ExpiryHint: "MM/YY", CVC: "CVC code", Name: "Name on card",
	Institution: "Institution number", Transit: "Transit number", Account: "Account number", Pay: "Pay", DebitNote: "By paying you agree that this amount is debited from your account once.",
	Hints: "Simulator: no real money moves. Show test cards", AnyExpiry: "Any future expiry date and any three digits as the security code. Real card numbers are declined.", Outcome: "What happens",
	ChallengeTitle: "Confirm that it is you", ChallengeText: "Your bank asks you to confirm this payment (3-D Secure).", ChallengeComplete: "Complete", ChallengeFail: "Fail", ChallengeShown: "Card ending in",
	PaidTitle: "This payment is complete", PaidText: "Nothing more is due here. A payment cannot be made twice.",
	ExpiredTitle: "This page has expired", ExpiredText: "No payment was taken. Start again from where you came.",
	NoneTitle: "There is no such payment page", NoneText: "Check the address, or start again from where you came.",
	CheckFields: "Check the fields marked below.",
	Wrong: map[string]string{
		"email": "Enter an email address such as name@example.ca.", "number": "Your card number is invalid.", "expiry": "Enter a month and year that have not passed, such as 04/29.",
		"cvc": "Your card's security code is incomplete.", "name": "Enter the name on the card.",
		"institution": "Enter the three digits of the institution.", "transit": "Enter the five digits of the transit number.", "account": "Enter one of the test account numbers.",
	},
	Declined: map[string]string{
		"": "Your card was declined. Try another card.", "insufficient_funds": "Your card has insufficient funds. Try another card.", "expired_card": "Your card has expired. Try another card.",
		"incorrect_cvc": "Your card's security code is incorrect.", "processing_error": "An error occurred while processing your card. Try again in a little bit.",
		testModeDecline:      "Your card was declined: this simulator takes test cards only.",
		authenticationFailed: "We could not confirm that it is you. Try again or choose another card.",
	},
	Means: map[string]string{
		"ok": "Succeeds", "declined": "Is declined", "no funds": "Is declined: insufficient funds", "3-D Secure": "Asks for 3-D Secure, then succeeds", "3-D Secure 2": "Asks for 3-D Secure 2, then succeeds",
		"disputed": "Succeeds, and is disputed", "refund fails": "Succeeds; a refund of it fails later", "prepaid": "Succeeds; a prepaid card",
	},
	Accounts: map[string]string{
		debitSoon: "Account at 000 11000: the debit succeeds at once", debitLater: "Account at 000 11000: succeeds after 3 minutes",
		debitFailsSoon: "Account at 000 11000: fails at once", debitFailLater: "Account at 000 11000: fails after 3 minutes",
	},
}

var french = words{
	Lang: "fr", Mark: "simulateur", Order: "Votre paiement", Total: "Total", PayWith: "Payer par carte", Debit: "Payer plutôt par débit préautorisé", Back: "Retour", Return: "Retourner chez le commerçant",
	Email: "Courriel", Number: "Numéro de carte", Expiry: "Expiration", ExpiryHint: "MM/AA", CVC: "Code CVC", Name: "Nom sur la carte",
	Institution: "Numéro d’institution", Transit: "Numéro de transit", Account: "Numéro de compte", Pay: "Payer", DebitNote: "En payant, vous acceptez que ce montant soit débité une fois de votre compte.",
	Hints: "Simulateur : aucun argent réel ne circule. Afficher les cartes d’essai", AnyExpiry: "N’importe quelle date d’expiration future et n’importe quels trois chiffres comme code de sécurité. Les vraies cartes sont refusées.", Outcome: "Ce qui se passe",
	ChallengeTitle: "Confirmez qu’il s’agit de vous", ChallengeText: "Votre banque vous demande de confirmer ce paiement (3-D Secure).", ChallengeComplete: "Confirmer", ChallengeFail: "Échouer", ChallengeShown: "Carte se terminant par",
	PaidTitle: "Ce paiement est terminé", PaidText: "Il n’y a plus rien à payer ici. Un paiement ne peut pas être fait deux fois.",
	ExpiredTitle: "Cette page a expiré", ExpiredText: "Aucun paiement n’a été prélevé. Recommencez à partir de votre point de départ.",
	NoneTitle: "Cette page de paiement n’existe pas", NoneText: "Vérifiez l’adresse ou recommencez à partir de votre point de départ.",
	CheckFields: "Vérifiez les champs indiqués ci-dessous.",
	Wrong: map[string]string{
		"email": "Entrez une adresse courriel, par exemple nom@exemple.ca.", "number": "Le numéro de carte n’est pas valide.", "expiry": "Entrez un mois et une année à venir, par exemple 04/29.",
		"cvc": "Le code de sécurité de votre carte est incomplet.", "name": "Entrez le nom inscrit sur la carte.",
		"institution": "Entrez les trois chiffres de l’institution.", "transit": "Entrez les cinq chiffres du transit.", "account": "Entrez l’un des numéros de compte d’essai.",
	},
	Declined: map[string]string{
		"": "Votre carte a été refusée. Essayez une autre carte.", "insufficient_funds": "Les fonds de votre carte sont insuffisants. Essayez une autre carte.", "expired_card": "Votre carte a expiré. Essayez une autre carte.",
		"incorrect_cvc": "Le code de sécurité de votre carte est incorrect.", "processing_error": "Une erreur s’est produite lors du traitement de votre carte. Réessayez dans un instant.",
		testModeDecline:      "Votre carte a été refusée : ce simulateur n’accepte que les cartes d’essai.",
		authenticationFailed: "Nous n’avons pas pu confirmer qu’il s’agit de vous. Réessayez ou choisissez une autre carte.",
	},
	Means: map[string]string{
		"ok": "Est acceptée", "declined": "Est refusée", "no funds": "Est refusée : fonds insuffisants", "3-D Secure": "Demande 3-D Secure, puis est acceptée", "3-D Secure 2": "Demande 3-D Secure 2, puis est acceptée",
		"disputed": "Est acceptée, puis contestée", "refund fails": "Est acceptée; son remboursement échoue plus tard", "prepaid": "Est acceptée; carte prépayée",
	},
	Accounts: map[string]string{
		debitSoon: "Compte au 000 11000 : le débit réussit tout de suite", debitLater: "Compte au 000 11000 : réussit après 3 minutes",
		debitFailsSoon: "Compte au 000 11000 : échoue tout de suite", debitFailLater: "Compte au 000 11000 : échoue après 3 minutes",
	},
}

// declined is what the page says of a decline.
func (w words) declined(code string) string {
	if s, ok := w.Declined[code]; ok {
		return s
	}
	return w.Declined[""]
}
