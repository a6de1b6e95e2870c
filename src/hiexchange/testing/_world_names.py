"""Names of many languages for the ``world`` profile of the households, by hand; no rule or weight was made with them.

Each people has given names by sex, family names and the ways a clerk spells them. Frequencies are made up.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class People:
    """Names that go together."""

    share: float
    """Of households."""
    female: tuple[str, ...]
    male: tuple[str, ...]
    family: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return (
        tuple(text.replace("_", " ").split()) if "_" not in text else tuple(w.replace("_", " ") for w in text.split())
    )


_STEMS = _words(
    """Ash Brad Burn Carl Chat Clay Clif Col Craw Dal Dun Ed El Fair Farn Ful Gar Gil Gran Hal Ham Har Hart Hav
        Hol Kel
    Ken Lang Law Lin Long Lyn Mar May Mid Mill Mor New Nor Oak Park Pem Pres Ray Red Rich Rock Ros Row Rut San
        Shel Stan
    Stock Sut Thorn Tol Wal War Wat Web Wel West Whit Wil Win Wood"""
)
_ENDS = _words(
    """ton ford ley field well ham man worth son by wood land more ridge bury gate stead ner dale low ers brook
    cott ing"""
)

ENGLISH = People(
    0.62,
    _words(
        """Mary Patricia Linda Barbara Elizabeth Jennifer Susan Margaret Dorothy Nancy Karen Betty Helen Sandra
        Donna Carol Ruth Sharon
        Michelle Laura Kimberly Deborah Jessica Shirley Cynthia Angela Melissa Brenda Amy Rebecca Virginia
        Kathleen Pamela Martha Debra
        Amanda Stephanie Carolyn Christine Janet Catherine Frances Joyce Diane Alice Julie Heather Teresa Doris
        Gloria Evelyn Cheryl
        Mildred Katherine Joan Ashley Judith Rose Janice Kelly Nicole Judy Christina Kathy Theresa Beverly
        Denise Tammy Irene Jane Lori
        Rachel Marilyn Andrea Kathryn Louise Sara Anne Jacqueline Wanda Bonnie Julia Ruby Lois Tina Phyllis
        Norma Paula Diana Annie Lillian
        Emily Robin Peggy Crystal Gladys Rita Dawn Connie Florence Tracy Edna Tiffany Carmen Rosa Cindy Grace
        Wendy Victoria Edith Kim
        Sherry Sylvia Josephine Thelma Shannon Sheila Ethel Ellen Elaine Marjorie Carrie Charlotte Monica
        Esther Pauline Emma Juanita
        Anita Rhonda Hazel Amber Eva Debbie April Leslie Clara Lucille Jamie Joanne Eleanor Valerie Danielle
        Megan Alicia Suzanne Michele
        Gail Bertha Darlene Veronica Jill Erin Geraldine Lauren Cathy Joann Lorraine Lynn Sally Regina Erica
        Beatrice Dolores Bernice
        Audrey Yvonne Annette June Samantha Marion Dana Stacy Ana Renee Ida Vivian Roberta Holly Brittany
        Melanie Loretta Yolanda Jeanette
        Laurie Katie Kristen Vanessa Alma Sue Elsie Beth Jeanne Vicki Carla Tara Rosemary Eileen Terri Gertrude
        Lucy Tonya Ella Stacey
        Kayla Kaylee Kaylin Madison Madelyn Ava Olivia Sophia Isabella Mia Harper Abigail Avery Aubrey Addison
        Addyson Brooklyn Bailey
        Hailey Haley Destiny Trinity Serenity Nevaeh Peyton Paisley Piper Riley Rylee Kylie Kyleigh Zoe Chloe
        Lily Layla Leah Lea"""
    ),
    _words(
        """James John Robert Michael William David Richard Charles Joseph Thomas Christopher Daniel Paul Mark
        Donald George Kenneth Steven
        Edward Brian Ronald Anthony Kevin Jason Matthew Gary Timothy Jose Larry Jeffrey Frank Scott Eric
        Stephen Andrew Raymond Gregory
        Joshua Jerry Dennis Walter Patrick Peter Harold Douglas Henry Carl Arthur Ryan Roger Joe Juan Jack
        Albert Jonathan Justin Terry
        Gerald Keith Samuel Willie Ralph Lawrence Nicholas Roy Benjamin Bruce Brandon Adam Harry Fred Wayne
        Billy Steve Louis Jeremy Aaron
        Randy Howard Eugene Carlos Russell Bobby Victor Martin Ernest Phillip Todd Jesse Craig Alan Shawn
        Clarence Sean Philip Chris Johnny
        Earl Jimmy Antonio Danny Bryan Tony Luis Mike Stanley Leonard Nathan Dale Manuel Rodney Curtis Norman
        Allen Marvin Vincent Glenn
        Jeffery Travis Jeff Chad Jacob Lee Melvin Alfred Kyle Francis Bradley Jesus Herbert Frederick Ray Joel
        Edwin Don Eddie Ricky Troy
        Randall Barry Alexander Bernard Mario Leroy Francisco Marcus Micheal Theodore Clifford Miguel Oscar Jay
        Jim Tom Calvin Alex Jon
        Ronnie Bill Lloyd Tommy Leon Derek Warren Darrell Jerome Floyd Leo Alvin Tim Wesley Gordon Dean Greg
        Jorge Dustin Pedro Derrick Dan
        Lewis Zachary Corey Herman Maurice Vernon Roberto Clyde Glen Hector Shane Ricardo Sam Rick Lester Brent
        Ramon Charlie Tyler Gilbert
        Gene Aiden Ayden Jayden Jaden Kaden Kayden Brayden Braden Landon London Logan Mason Jaxon Jackson
        Hudson Grayson Carson Parker
        Hunter Tucker Easton Weston Bentley Bryson Bryce Cody Colby Colton Dalton Dawson Tanner Trenton Trevor
        Trey Caleb Gabe Levi Eli"""
    ),
    _words(
        """Smith Johnson Williams Brown Jones Miller Davis Wilson Anderson Taylor Thomas Moore Jackson Martin
        Thompson White Harris Clark
        Lewis Robinson Walker Young Allen King Wright Scott Hill Green Adams Nelson Baker Hall Campbell
        Mitchell Carter Roberts Phillips
        Evans Turner Parker Collins Edwards Stewart Morris Murphy Cook Rogers Morgan Cooper Peterson Bailey
        Reed Kelly Howard Cox Ward
        Richardson Watson Brooks Wood Bennett Gray James Hughes Price Myers Long Foster Sanders Ross Powell
        Sullivan Russell Jenkins Perry
        Butler Barnes Fisher Henderson Coleman Simmons Patterson Jordan Reynolds Hamilton Graham Wallace Cole
        West Stephens Gibson Bryant"""
    )
    + tuple(stem + end for stem in _STEMS for end in _ENDS)
    + tuple("Mc" + stem.title() for stem in _STEMS),
)
BLACK = People(
    0.10,
    _words(
        """Latoya Keisha Tamika Latasha Ebony Aaliyah Imani Kiara Shanice Shaniqua Monique Tanisha Kenya Nia
        Raven Precious Jada Diamond
        Asia Deja Tyesha Lakisha Yolanda Tameka Essence Janae Jamila Latonya Latisha Chanel Shante Zaria Amari
        Kamari Zamari Jakayla Makayla
        Mikayla Shakayla Tamia Tamya Janiya Janiyah Aniya Aniyah Taniya Taniyah Sanaa Skye Kierra Sierra Tierra"""
    ),
    _words(
        """Darnell Jamal Terrell Tyrone Deandre Deshawn Demetrius Marquis Malik Jermaine Lamar Cedric Reginald
        Darius Tremaine Antwan Devonte
        Davonte Javonte Tavon Javon Davon Kobe Kareem Rasheed Tyrese Tyrell Trayvon Travon Dontae Donte Dante
        Quincy Xavier Zavier Khalil
        Jalen Jaylen Jaylon Kaylen Daylen Kamari Jamari Amari Omari Semaj Isaiah Elijah Josiah Messiah Jeremiah"""
    ),
    _words(
        """Washington Jefferson Booker Banks Gaines Mosley Tate Dorsey Hines Bynum Muhammad Toussaint Singleton
        Gaston Pettway Battle Cobbs"""
    ),
)
HISPANIC = People(
    0.15,
    _words(
        """Maria_Guadalupe Guadalupe Maria_Elena Ana_Maria Rosa Carmen Juana Leticia Silvia Norma Alejandra
        Adriana Veronica Patricia Gabriela
        Mariana Daniela Valeria Ximena Jimena Camila Fernanda Yesenia Jesenia Yadira Xiomara Marisol Maricela
        Maribel Araceli Esperanza
        Dulce Itzel Lizbeth Lisbeth Paola Perla Blanca Luz_Maria Rocio Beatriz Estela Irma Alma Ofelia"""
    ),
    _words(
        """Jose_Luis Juan_Carlos Jose Juan Luis Carlos Jorge Miguel_Angel Francisco_Javier Jesus Manuel Pedro
        Alejandro Fernando Sergio Raul
        Rafael Javier Eduardo Arturo Enrique Gerardo Armando Ruben Ernesto Guillermo Alfredo Gustavo Cesar
        Hector Diego Santiago Emiliano
        Angel Adan Ivan Saul Efrain Ezequiel Gilberto Heriberto Humberto Ignacio Ismael Joaquin Mauricio Noe
        Octavio Ramiro Salvador"""
    ),
    _words(
        """Garcia Rodriguez Martinez Hernandez Lopez Gonzalez Perez Sanchez Ramirez Torres Flores Rivera Gomez
        Diaz Reyes Morales Cruz Ortiz
        Gutierrez Chavez Ramos Ruiz Mendoza Alvarez Castillo Jimenez Vasquez Vazquez Moreno Herrera Medina
        Aguilar Vargas Guzman Mendez Munoz
        Salazar Garza Soto Alvarado Delgado Pena Rios Silva Contreras Padilla Dominguez Cervantes Villarreal
        Zamora Ochoa Quintanilla"""
    ),
)
VIETNAMESE = People(
    0.03,
    _words(
        """Lan Huong Mai Linh Hoa Thuy Trang Ngoc_Anh Phuong Hanh Thu_Ha Bich_Ngoc Kim_Chi My_Linh Thanh_Tam
        Nhung Tuyet Hong Dung Van"""
    ),
    _words(
        """Minh Hung Tuan Duc_Anh Quang Long Nam Dung Hai Khanh Phong Thanh Tien Vinh Bao Huy Khoa Kien Son Van_Minh"""
    ),
    _words("Nguyen Tran Le Pham Huynh Phan Vu Vo Dang Bui Do Ho Ngo Duong Ly"),
)
CHINESE = People(
    0.03,
    _words(
        """Xiaoling Meiling Li Jing Fang Ying Yan Hui Xiaoyan Lihua Yuhan Zihan Xinyi Wenjing Shuang Qian Min Na
        Juan Yun"""
    ),
    _words(
        """Wei Jian Jun Ming Lei Qiang Yong Jianguo Zhiwei Haoran Yuxuan Zihao Wenbo Xiaoming Guang Tao Bin Chao
        Feng Peng"""
    ),
    _words("Wang Li Zhang Liu Chen Yang Huang Zhao Wu Zhou Xu Sun Ma Zhu Hu Guo He Lin Gao Luo"),
)
HMONG = People(
    0.01,
    _words("Mai Pa_Houa Kia See Bao Yer Mee Xee Pang Chee Nou Ka_Zoua Mai_Lee Maly Gao_Nou"),
    _words("Tou Pao Kong Chue Xeng Yeng Tou_Lee Nhia Cha Fue Bee Lue Teng Vang_Pao Meng"),
    _words("Vang Yang Xiong Lee Lor Moua Thao Her Vue Hang Cha Kue"),
)
ARABIC = People(
    0.03,
    _words(
        """Fatima Fatma Aisha Maryam Khadija Zainab Layla Noor Huda Amina Salma Yasmin Hala Rania Dalia Samira
        Nadia Iman Sara Lina"""
    ),
    _words(
        """Mohammed Ahmed Ali Hassan Hussein Omar Khalid Ibrahim Yousef Mustafa Abdullah Abdul_Rahman Tariq Samir
        Karim Bilal Hamza Zaid Faisal Nasser"""
    ),
    _words(
        """Al-Masri Haddad Khoury Abdullah El-Sayed Hussain Rahman Khan Malik Siddiqui Qureshi Nasser Saleh Aziz
        Mansour Bashir Darwish Hamdan"""
    ),
)
MARSHALLESE = People(
    0.03,
    _words(
        "Neimat Bonjen Tarjelik Litokwa Hemity Mereani Wisney Jela Lijon Tamara Neijon Emty Kathrine Roselinta Lino"
    ),
    _words("Jelton Alik Hilson Rantak Kaious Tokjen Bwijko Anjain Lanwi Jorbi Rubon Wilmer Ronson Takiji Banjo"),
    _words("Kabua Lanki Jorlang Ria Riklon Anitok Lometo Loeak Hesa Jetnil Zackios Balos Maddison Nenam"),
)
PEOPLES = (ENGLISH, BLACK, HISPANIC, VIETNAMESE, CHINESE, HMONG, ARABIC, MARSHALLESE)

PET_FORMS = {
    words[0]: words[1:]
    for words in (
        line.split()
        for line in """James Jim Jimmy Jamie
Robert Bob Rob Bobby
John Jack Johnny
Michael Mike Mikey
William Bill Will Billy Liam
David Dave
Richard Rick Dick Rich
Charles Chuck Charlie Chas
Joseph Joe Joey
Thomas Tom Tommy
Christopher Chris Topher Kit
Daniel Dan Danny
Donald Don Donnie
Kenneth Ken Kenny
Steven Steve
Edward Ed Eddie Ted
Ronald Ron Ronnie
Anthony Tony
Matthew Matt
Timothy Tim
Lawrence Larry
Jeffrey Jeff
Andrew Andy Drew
Gregory Greg
Joshua Josh
Samuel Sam Sammy
Benjamin Ben
Nicholas Nick
Jonathan Jon
Zachary Zach Zack
Alexander Alex
Francisco Paco Pancho
Jose Pepe
Guillermo Memo
Ignacio Nacho
Eduardo Lalo
Patricia Pat Patty Trish
Elizabeth Liz Beth Betsy Betty Lisa
Jennifer Jen Jenny
Barbara Barb
Susan Sue Susie
Margaret Peggy Maggie Meg Marge
Dorothy Dot Dottie
Deborah Deb Debbie
Kimberly Kim
Rebecca Becky Becca
Kathleen Kathy Kate
Katherine Kathy Kate Katie
Catherine Cathy Kate
Pamela Pam
Amanda Mandy
Stephanie Steph
Christine Chris Chrissy
Christina Chris Tina
Judith Judy
Jacqueline Jackie
Victoria Vicky Tori
Samantha Sam
Madison Maddie
Madelyn Maddie
Abigail Abby
Theresa Terry
Guadalupe Lupe
Francisca Paca
Gabriela Gabby""".splitlines()
    )
}
"""Pet forms as people use them; not the file that the matcher reads."""

SPELLINGS = {
    words[0]: words[1:]
    for words in (
        line.split()
        for line in """Mohammed Muhammad Mohamed Mohamad Mohd
Ahmed Ahmad Achmed
Hussein Husain Hossein Hussain
Yousef Yusuf Youssef Joseph
Khalid Khaled
Omar Umar
Fatima Fatimah Fatema
Aisha Ayesha Aysha
Maryam Mariam Miriam
Zainab Zaynab Zeinab
Noor Nour Nur
Layla Laila Leila
Khadija Khadijah
Sara Sarah
Catherine Katherine Kathryn
Steven Stephen
Jeffrey Geoffrey
Brian Bryan
Sean Shawn
Xiaoling Hsiaoling
Yesenia Jesenia
Jimena Ximena
Lizbeth Lisbeth
Jon John
Philip Phillip
Eric Erik
Haley Hailey""".splitlines()
    )
}
"""One name, as different clerks write it."""

TWINS = tuple(
    tuple(pair.split())
    for pair in """Kayden Jayden;Aiden Ayden;Kaylee Kaylin;Madison Madelyn;Hailey Bailey;Jaylen Kaylen;Mason
        Jaxon;Landon Logan;
Destiny Trinity;Ella Emma;Olivia Sophia;Javon Davon;Devonte Javonte;Aniyah Taniyah;Christina Christine;Kayla
        Kylie;Brayden Braden;
Isaiah Elijah;Makayla Mikayla;Amari Kamari;Marisol Maribel;Jose Josue;Ana Anna;Daniel Daniela;Michael
        Michelle;Christopher Christian;
Lan Linh;Xinyi Xinyu;Tou Toua;Fatima Fatma;Leah Lea;Riley Rylee;Easton Weston;Hunter Tucker;Joan Joanne;Carla
        Carlos;Timothy Thomas;
Matthew Mark;Alexander Alexis;Robert Roberta;Dale Gale;Ray Roy;Ronald Donald;Harold Gerald;Marion
        Marian;Lillian Vivian""".replace("\n", "").split(";")
)
"""Twins' names, alike in sound, start or end."""
