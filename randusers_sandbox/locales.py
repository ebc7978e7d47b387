"""The places, names and number formats that generated users are made of."""

# ruff: noqa: RUF001 - names in their own scripts have letters that look like Latin ones

from typing import NamedTuple


class Locale(NamedTuple):
    """One nationality; lists are separated by `, `, a name not in Latin script is `name=latin`.

    In a pattern `#` is a digit and `@` a capital letter. A postcode of digits alone becomes a JSON
    integer, any other a JSON string. The weights sum to 256; string postcodes have a fifth of it,
    as in the API's own records.
    """

    nat: str
    country: str
    weight: int
    calling_code: str
    postcode: str
    phone: str
    cell: str
    men: str
    women: str
    lasts: str
    streets: str
    cities: str
    states: str


# fmt: off
LOCALES = (
    Locale("NL", "Netherlands", 15, "+31", "#### @@", "(0##) #######", "(06) ########",
        "Liron, Hendrik, Sjoerd, Jelle, Thijs, Wouter",
        "Yori, Sin, Fenna, Noëlle, Maaike, Loïs",
        "Knot, Roukema, van der Heijden, Dijkstra, 't Hart, de Vries, Bloemendaal",
        "Kastordreef, Bus En Dam, Prins Hendrikkade, Lange Nieuwstraat, Oude Gracht",
        "'s-Hertogenbosch, Velp, Utrecht, Winterswijk Henxel, Delft",
        "Noord-Holland, Flevoland, Gelderland, Zeeland, Drenthe"),
    Locale("NO", "Norway", 15, "+47", "0###", "########", "4#######",
        "Bjørn, Ola, Håkon, Åsmund, Øystein, Tor",
        "Emmy, Åse, Ingrid, Solveig, Sigrún, Liv",
        "Vagle, Mæle, Sørum, Ødegård, Aasen, Grønning",
        "Frodes vei, Haugerudveien, Omsens gate, Olav Selvaags plass",
        "Brandal, Heiås, Vestre Jakobselv, Ålesund, Tromsø",
        "Møre og Romsdal, Vestfold, Oslo, Trøndelag, Nordland"),
    Locale("GB", "United Kingdom", 13, "+44", "@# #@@", "01#### #####", "07### ######",
        "Derek, Tyrone, Alfie, Owain, Callum, Rhys",
        "Amber, Hanna, Siân, Zoë, Chloe, Niamh",
        "O'Connor, Palmer, Smith-Jones, Hawkins, MacLeod, Llewellyn",
        "Rectory Lane, York Road, Queen Street, Mill Lane, The Grove",
        "Portsmouth, Inverness, Stoke-on-Trent, Chichester, Bishop's Stortford",
        "West Midlands, Lincolnshire, County Londonderry, Powys, Highlands and Islands"),
    Locale("CA", "Canada", 9, "+1", "@#@ #@#", "(###) ###-####", "(###) ###-####",
        "Félix, Blake, Étienne, Logan, Xavier",
        "Emma, Zoé, Maïka, Océane, Avery",
        "Pelletier, Wong, Roy, Bélanger, St-Pierre, Côté",
        "Richmond Ave, 9th St, Park Rd, Chemin du Lac, Rue de l'Église",
        "Chelsea, Hampstead, Trois-Rivières, Campbellton, Elgin",
        "Newfoundland and Labrador, Yukon, Québec, Ontario, British Columbia"),
    Locale("FR", "France", 18, "+33", "#####", "0#-##-##-##-##", "06-##-##-##-##",
        "Jules, Loïs, Anatole, François, Gaël, Théo",
        "Lia, Hélène, Maëlys, Aurélie, Noémie, Lucie",
        "Fleury, Lefèvre, Martinez, Lemoine, d'Aubigné, Garçon",
        "Route de Genas, Boulevard de la Duchère, Place de L'Abbé-Franz-Stock, Rue Pierre-Delore",
        "Caen, Perpignan, Aix-En-Provence, Nîmes, Saint-Étienne",
        "Ardèche, Meuse, Cantal, Pyrénées-Atlantiques, Côte-d'Or"),
    Locale("RS", "Serbia", 14, "+381", "#####", "0##-####-###", "06#-####-###",
        "Milenko, Đorđe, Siniša, Živko, Novak",
        "Tanja, Olga, Dušica, Željka, Ljiljana",
        "Španović, Karanović, Đurić, Rakić, Pavić, Šćepanović",
        "Vojvode Mišića, Kriljevska, Bajčinska, Nataše Luković, Železnička",
        "Lebane, Topola, Preševo, Niš, Čačak",
        "Prizren, South Bačka, Jablanica, Mačva, Šumadija"),
    Locale("ES", "Spain", 16, "+34", "#####", "9##-###-###", "6##-###-###",
        "David, Íñigo, Joaquín, Jesús, Ángel",
        "Virginia, Adriana, Begoña, Nuria, Inés",
        "Domínguez, Rodríguez, Muñoz, Ibáñez, Peña, Güell",
        "Avenida de Andalucía, Calle de La Democracia, Paseo de Zorrilla, Ronda de Toledo",
        "Santa Cruz de Tenerife, Gandía, Gijón, A Coruña, Cádiz",
        "Asturias, Islas Baleares, Castilla y León, Canarias, Cataluña"),
    Locale("DE", "Germany", 13, "+49", "#####", "0###-#######", "017#-#######",
        "Siegfried, Jürgen, Björn, Günther, Moritz",
        "Cosima, Bärbel, Käthe, Bertha, Jördis",
        "Ullrich, Müller, Weiß, Vetter, Groß, von Bülow",
        "Birkenstraße, Königsberger Straße, Meisenweg, Goethestraße, Schloßallee",
        "Lippe, Weilburg, Großröhrsdorf, Köln, Kirchberg an der Jagst",
        "Thüringen, Baden-Württemberg, Sachsen-Anhalt, Bremen, Schleswig-Holstein"),
    Locale("DK", "Denmark", 14, "+45", "#####", "########", "########",
        "August, Søren, Åge, Jørgen, Christoffer",
        "Lærke, Emma, Kirstine, Mette, Bodil",
        "Poulsen, Christiansen, Jørgensen, Mortensen, Østergård",
        "Skovhøj, Slotsvej, Ahornvej, Agervænget, Nørregade",
        "Stenderup, Stokkemarke, Esbjerg V, Beder, Ærøskøbing",
        "Syddanmark, Midtjylland, Sjælland, Hovedstaden, Nordjylland"),
    Locale("NZ", "New Zealand", 12, "+64", "#####", "(###)-###-####", "(0##)-###-####",
        "Joseph, Hunter, Wiremu, Tāne, Liam",
        "Emma, Evie, Aroha, Mārama, Ruby",
        "Evans, Li, Thompson, Ngāta, Te Rangi",
        "Lunn Avenue, Rangitikei Street, Wairakei Road, Harewood Road, Fitzgerald Avenue",
        "Hastings, Lower Hutt, Whangārei, Gisborne, Taupō",
        "Otago, Wellington, Taranaki, Hawke's Bay, Manawatū"),
    Locale("US", "United States", 14, "+1", "#####", "(###) ###-####", "(###) ###-####",
        "Carter, Tyler, Beau, Marcus, José",
        "Stephanie, Ava, Catherine, Renée, Lori",
        "Owens, Henderson, Ramos, Burns, O'Neal, St. Clair",
        "Spring Hill Rd, Hunters Creek Dr, Harrison Ct, Nowlin Rd, Main St, W Dallas St",
        "Anna, Montgomery, Miramar, Grapevine, Coeur d'Alene",
        "Maryland, North Carolina, Hawaii, New Mexico, District of Columbia"),
    Locale("MX", "Mexico", 12, "+52", "#####", "(6##) ### ####", "(6##) ### ####",
        "Carmelo, Emilio, Adán, Cuauhtémoc, Óscar",
        "Lilia, Arcelia, Itzel, Guadalupe, Noemí",
        "Ibarra, Salgado, Longoria, Ramírez, Treviño",
        'Calle Norte Varela, Corredor Carreón, Callejón "El Sol", Periférico Coronado',
        "Los Volcanes, El Porvenir Guadalupe, Jaral del Progreso, Mérida, Juárez",
        "Baja California Sur, Nayarit, Puebla, Nuevo León, Ciudad de Mexico"),
    Locale("BR", "Brazil", 10, "+55", "#####", "(##) ####-####", "(##) ####-####",
        "Everaldo, Bernardim, João, Antônio, Caê",
        "Elina, Fabiane, Conceição, Lívia, Thaís",
        "Moraes, Aragão, Vieira, Gonçalves, da Conceição",
        "Rua Santa Catarina , Rua Maranhão , Rua Pará , Avenida São João, Rua Três",
        "Guarapuava, Águas Lindas de Goiás, Pouso Alegre, Gravataí, Maceió",
        "São Paulo, Alagoas, Roraima, Ceará, Espírito Santo"),
    Locale("CH", "Switzerland", 9, "+41", "####", "07# ### ## ##", "07# ### ## ##",
        "Ahmed, Matteo, Urs, Reto, Jérôme",
        "Cäcilia, Tatiana, Heidi, Chloé, Annemarie",
        "Lemoine, Aubert, Vidal, Zürcher, Rüegg",
        "Montée du Chemin-Neuf, Rue Louis-Garrand, Boulevard de Balmont, Rue des Écoles",
        "Erlinsbach (Ag), Basel, Cugnasco-Gerra, Zürich, Neuchâtel",
        "Schwyz, Glarus, Thurgau, Graubünden, Valais"),
    Locale("TR", "Turkey", 9, "+90", "#####", "(###)-###-####", "(###)-###-####",
        "Çağlar, Oğuz, Şahin, İlker, Umut",
        "Ülkü, Begüm, Sedef, Işıl, Gülşen",
        "Abadan, Yıldızoğlu, Tunçeri, Baykam, Özgür",
        "Şehitler Cd, Tunalı Hilmi Cd, Vatan Cd, Mevlana Cd, İstiklal Cd",
        "Kahramanmaraş, Kars, Iğdır, Karabük, İzmir",
        "Ordu, Çankırı, Zonguldak, Kütahya, Muğla"),
    Locale("IR", "Iran", 14, "+98", "#####", "0##-########", "09##-###-####",
        "آراد=arad, میلاد=milad, آرتین=artin, امیرعلی=amirali, علی‌رضا=alireza",
        "درسا=dorsa, النا=elena, ستایش=setayesh, نگین=negin, پریا=paria",
        "کوتی=koti, رضایی=rezaei, احمدی=ahmadi, کریمی=karimi, سلطانی‌نژاد=soltani",
        "میدان استقلال, نبرد جنوبی, میرداماد, شهید رجایی, خیابان ولی‌عصر",
        "نیشابور, خوی, ایلام, کرمانشاه, خمینی‌شهر",
        "کردستان, خراسان رضوی, لرستان, قزوین, سیستان و بلوچستان"),
    Locale("UA", "Ukraine", 10, "+380", "#####", "(0##) @##-####", "(09#) @##-####",
        "Дмитро=dmytro, Ярослав=yaroslav, Євген=yevhen, Ігор=ihor",
        "Зоя=zoya, Марута=maruta, Олена=olena, Ївга=yivha",
        "Гоцко=gotsko, Чуйкевич=chuykevych, Сапеляк=sapelyak, Лук'яненко=lukyanenko",
        "вулиця Івана Пулюя, провулок Маршака, вулиця Гладківська, площа Ринок",
        "Попасна, Бобровиця, Київ, Камінь-Каширський, Львів",
        "Полтавська, Запорізька, Чернівецька, Івано-Франківська"),
    Locale("IN", "India", 9, "+91", "#####", "7#########", "9#########",
        "हर्ष=harsh, मितेश=mitesh, कृष्ण=krishna, अर्जुन=arjun",
        "हेतल=hetal, नंदिता=nandita, लक्ष्मी=lakshmi, प्रिया=priya",
        "भारण्य=bharanya, उचिल=uchil, रावल=raval, श्रीवास्तव=shrivastav",
        "Gali Paranthe Wali, NAD X Rd, त्रिपोलिया बाज़ार, Mirza Ghalib St",
        "हावड़ा, Kozhikode, Khandwa, फ़तेहपुर, Howrah",
        "Madhya Pradesh, त्रिपुरा, Assam, Chandigarh, Tamil Nadu"),
    Locale("GR", "Greece", 6, "+30", "#####", "2##-###-####", "69#-###-####",
        "Γιώργος=giorgos, Οδυσσέας=odysseas, Άγγελος=angelos",
        "Ελένη=eleni, Αγγελική=angeliki, Χρυσούλα=chrysoula",
        "Παπαδόπουλος=papadopoulos, Οικονόμου=oikonomou, Βλάχος=vlachos",
        "Οδός Ερμού, Λεωφόρος Κηφισίας, Οδός Αθηνάς",
        "Θεσσαλονίκη, Πάτρα, Ηράκλειο, Ιωάννινα",
        "Αττική, Κρήτη, Ήπειρος, Στερεά Ελλάδα"),
    Locale("CN", "China", 8, "+86", "######", "0##-########", "13#########",
        "伟=wei, 建国=jianguo, 子轩=zixuan, 𠮷平=jiping",
        "芳=fang, 秀英=xiuying, 诗涵=shihan, 丽=li",
        "王=wang, 李=li, 欧阳=ouyang, 司马=sima, 张=zhang",
        "人民路, 南京东路, 中山北一路, 解放大道",
        "成都, 乌鲁木齐, 杭州, 哈尔滨",
        "四川, 新疆, 浙江, 黑龙江"),
    Locale("JP", "Japan", 5, "+81", "#######", "0#-####-####", "090-####-####",
        "翔太=shota, 健一=kenichi, タケシ=takeshi",
        "さくら=sakura, 陽菜=hina, ユミ=yumi",
        "佐藤=sato, 渡邊=watanabe, 髙橋=takahashi",
        "銀座通り, 桜木町, 一番町",
        "横浜, 札幌, つくば",
        "神奈川県, 北海道, 茨城県"),
    Locale("EG", "Egypt", 6, "+20", "#####", "0#-####-####", "010-####-####",
        "محمد=mohamed, عبد الرحمن=abdelrahman, يوسف=youssef",
        "فاطمة=fatma, مريم=mariam, هبة=heba",
        "حسن=hassan, السيد=elsayed, منصور=mansour",
        "شارع التحرير, شارع النيل, ميدان رمسيس",
        "القاهرة, الإسكندرية, أسيوط",
        "الجيزة, الدقهلية, البحر الأحمر"),
    Locale("IE", "Ireland", 5, "+353", "#####", "0##-###-####", "081-###-####",
        "Landon, Raymond, Séamus, Pádraig",
        "Jennifer, Angela, Róisín, Gráinne",
        "Knight, Fleming, Ó Súilleabháin, O'Brien",
        "Henry Street, Alexander Road, Killarney Road, Sráid na Trá",
        "Athlone, Birr, Dún Laoghaire, Ballina",
        "Waterford, Offaly, Wicklow, Donegal"),
)
TIMEZONES = (
    ("-12:00", "Eniwetok, Kwajalein"), ("-11:00", "Midway Island, Samoa"), ("-10:00", "Hawaii"),
    ("-9:00", "Alaska"), ("-8:00", "Pacific Time (US & Canada)"),
    ("-7:00", "Mountain Time (US & Canada)"), ("-6:00", "Central Time (US & Canada), Mexico City"),
    ("-5:00", "Eastern Time (US & Canada), Bogota, Lima"),
    ("-4:00", "Atlantic Time (Canada), Caracas, La Paz"), ("-3:30", "Newfoundland"),
    ("-3:00", "Brazil, Buenos Aires, Georgetown"), ("-2:00", "Mid-Atlantic"),
    ("-1:00", "Azores, Cape Verde Islands"),
    ("0:00", "Western Europe Time, London, Lisbon, Casablanca"),
    ("+1:00", "Brussels, Copenhagen, Madrid, Paris"), ("+2:00", "Kaliningrad, South Africa"),
    ("+3:00", "Baghdad, Riyadh, Moscow, St. Petersburg"), ("+3:30", "Tehran"),
    ("+4:00", "Abu Dhabi, Muscat, Baku, Tbilisi"), ("+4:30", "Kabul"),
    ("+5:00", "Ekaterinburg, Islamabad, Karachi, Tashkent"),
    ("+5:30", "Bombay, Calcutta, Madras, New Delhi"), ("+5:45", "Kathmandu"),
    ("+6:00", "Almaty, Dhaka, Colombo"), ("+7:00", "Bangkok, Hanoi, Jakarta"),
    ("+8:00", "Beijing, Perth, Singapore, Hong Kong"),
    ("+9:00", "Tokyo, Seoul, Osaka, Sapporo, Yakutsk"), ("+9:30", "Adelaide, Darwin"),
    ("+10:00", "Eastern Australia, Guam, Vladivostok"),
    ("+11:00", "Magadan, Solomon Islands, New Caledonia"),
)
# fmt: on

COLOURS = (
    "angry, happy, green, purple, beautiful, golden, small, heavy, tiny, orange, blue, big, "
    "silver, red, lazy, brown"
)
ANIMALS = (
    "zebra, goose, tiger, dog, rabbit, ostrich, ladybug, snake, meercat, peacock, leopard, "
    "elephant, swan, frog, koala, duck"
)
PASSWORDS = (
    "otis, insanity, calgary, zerocool, payday, handsome, motor, popeye, vienna, bluejay, "
    "camelot, windmill, 456123, asgard, snickers, kestrel"
)
