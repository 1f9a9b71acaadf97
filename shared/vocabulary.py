"""The words that name columns, and what a name says: TX_AMOUNT is a transaction's amount."""

from __future__ import annotations

import re


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words of names, after `words_of` has split them; the tables of roles below are made of these.
EVENT = _set(
    "transaction trans tx txn trx payment purchase sale order booking posting transfer invoice "
    "event entry ledger charge withdrawal deposit movement line operation buchung buchungs "
    "buchungen umsatz umsaetze umsätze zahlung zahlungs zahlungen transaktion transaktions "
    "transaktionen überweisung ueberweisung paiement achat virement pago movimiento transaccion "
    "pagamento movimento transazione platba"
)
PERSON = _set(
    "customer cust client user member buyer payer cardholder holder consumer subscriber debtor "
    "shopper sender person patient household kunde kunden klient mitglied cliente titulaire "
    "adherent adhérent socio"
)
ACCOUNT = _set(
    "account acct acc card cc wallet iban konto compte cuenta conto karte karten carte tarjeta"
)
OTHER_SIDE = _set(
    "merchant merch terminal counterparty partner payee beneficiary recipient receiver creditor "
    "vendor supplier shop store seller biller dest destination pos haendler händler lieferant "
    "empfaenger empfänger magasin marchand commercant commerçant fournisseur beneficiaire "
    "bénéficiaire comercio negozio obchodnik"
)
KEY = _set("id key no nr num number nummer uuid guid ref reference ident pk numero")
FILL = _set("src source from orig the fk my s")
ORDER = _set("order invoice basket receipt cart bill purchase ticket")
MONEY = _set("amount amt betrag montant importe importo bedrag castka sum summe monto")
WORTH = _set("value total price paid payment cost spend charge net gross revenue")
NOT_MONEY = _set(
    "balance limit fee tax vat discount quantity qty count rate tip ratio avg average mean std "
    "min max old new day second minute hour age score pct percent unit date time saldo solde "
    "rahmen plafond limite gebühr gebuehr"
)
CURRENCY = _set("currency ccy cur curr waehrung währung devise moneda valuta mena")
WHEN = _set(
    "time datetime timestamp ts date moment when booked occurred posted paid at on utc datum "
    "epoch unix day zeit uhrzeit zeitpunkt heure fecha hora jour giorno"
)
NOT_WHEN = _set(
    "updated modified valid expiry expires expiration birth opened due inserted loaded ingested "
    "arrived deleted until end issued changed closed reported labelled known geburt geburts geb "
    "naissance nacimiento nascita gemeldet signalement"
)
ARRIVED = _set(
    "inserted loaded ingested arrived imported landed etl ingestion arrival load insert received "
    "created"
)  # of the row, not of what it tells
BEGINS = _set("from start starts begin begins since effective")  # of what a row says
ENDS = _set("to until end ends till thru stop expiry expires expiration")
HOLDS = frozenset({"valid"})
LABEL = (
    "fraud", "fraudulent", "fraude", "frauduleux", "betrug", "betrugs", "frode", "podvod", "scam",
    "chargeback", "disputed", "label", "target", "class",
)  # fmt: skip
LABEL_FOR_SURE = frozenset(LABEL) - {"label", "target", "class"}
REPORTED = _set("label reported gemeldet signalement")
KIND = _set("scenario type kind reason category mode pattern")
JUDGED = LABEL_FOR_SURE | _set(
    "risk score alert flagged suspicious verdict dispute blocked label verdacht risiko risque "
    "riesgo rischio"
)
ENTITY = _set(
    "card cc pan account acct acc wallet iban device imei fingerprint ip browser cookie terminal "
    "pos atm gerät geraet appareil konto compte cuenta conto karte karten carte tarjeta"
)
ENTITY_OF = _set("hash hashed token address addr uid mac")
SCORE = _set("score scoring risk probability prob risiko risque")
SCORE_BY = _set(
    "rule model engine vendor system ml ai alert suspicion suspicious anomaly fraud legacy current "
    "total final"
)
OUTCOME = _set("churn churned attrition attrited default defaulted")
PERSONAL = _set(
    "firstname lastname surname forename fullname email mail phone mobile telephone "
    "address street birth birthday dob ssn passport iban password ip username nickname vorname "
    "nachname strasse straße adresse telefon geburt geburts geburtsdatum geb naissance nacimiento "
    "nascita prenom prénom"
)
TRAIT = _set(
    "age gender sex region country city state province county district suburb town language "
    "marital education nationality religion ethnicity occupation job geschlecht sexe sexo edad "
    "land bundesland ort stadt ville pays ciudad pais"
)
TRAIT_OF_PERSON = _set(
    "age gender sex marital education nationality religion ethnicity occupation job geschlecht "
    "sexe sexo edad"
)
PLACE = _set("lat lon lng long latitude longitude coordinate coordinates geo")
CODE = _set("code mcc zip postcode postal flag status type class kind bin")
MEASURE = _set(
    "quantity qty count nb day hour minute month year item instalment installment duration term "
    "distance age size population pop limit balance price fee tax score rate jahr anzahl menge "
    "saldo solde kredit rahmen plafond limite"
)
ASIDE = _set(
    "log audit backup bak archive archived old staging stg tmp temp test summary daily monthly "
    "agg stat history"
)
VOCABULARY = frozenset().union(
    EVENT, PERSON, ACCOUNT, OTHER_SIDE, KEY, ORDER, MONEY, WORTH, NOT_MONEY, CURRENCY, WHEN,
    NOT_WHEN, LABEL, KIND, JUDGED, ENTITY, OUTCOME, PERSONAL, TRAIT, PLACE, CODE, MEASURE, {"name"},
)  # fmt: skip
NAMED = _set("name code")
NAME_OF = _set("client customer cust user holder cardholder member last first full")


def words_of(name: str) -> frozenset[str]:
    """The words of a name in lower case: TX_AMOUNT, txAmount, "tx amount" and txamount alike."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    found: set[str] = set()
    for part in re.split(r"[\W_]+", spaced.lower()):
        found.update(_known_words(part.rstrip("0123456789") or part))
    return frozenset(found - {""})


def _known_words(part: str) -> tuple[str, ...]:
    """A part as it is, or as two words of ours that were written together, or in the singular."""
    if part in VOCABULARY:
        return (part,)
    if part.endswith("s") and part[:-1] in VOCABULARY:
        return (part[:-1],)
    for cut in range(2, len(part) - 1):
        if {part[:cut], part[cut:]} <= VOCABULARY | {"is"}:
            return (part[:cut], part[cut:])
    return (part,)
